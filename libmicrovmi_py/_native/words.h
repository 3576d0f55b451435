/* SPDX-License-Identifier: Apache-2.0 */
/* Words of virtual memory in mappings, free of calls: what readers.h has the fast way of. */
#ifndef MVI_WORDS_H
#define MVI_WORDS_H

#include "translations.h"

/* translations.c: where a word is that is elsewhere, in an image perhaps, and its place if it is in none. NULL: it is not
 * mapped, or must not be touched. */
const uint8_t *mvi_word_elsewhere(const struct mvi_table *table, uint64_t address, struct mvi_word *word);

/* Where a word is, by the place of the last one; NULL: it is not mapped. */
static inline const uint8_t *mvi_word_at(const struct mvi_table *table, uint64_t address, struct mvi_word *word)
{
    if (__builtin_expect(address - word->start >= word->span, 0))
        return mvi_word_elsewhere(table, address, word);
    return word->bytes + (address - word->start);
}

/* An entry of a mapping, loaded once and as a whole: the guest may change it at any time. Files may have it anywhere. */
static inline uint64_t mvi_entry_at_bytes(const uint8_t *bytes, uint32_t size)
{
    uint64_t entry;
    uint32_t half;

    if (__builtin_expect(size == 8, 1)) {
        memcpy(&entry, bytes, 8); /* one instruction, */
    } else {
        memcpy(&half, bytes, 4);
        entry = half;
    }
    __asm__ volatile("" : "+r"(entry)); /* which is not done again */
    return entry;
}

/*
 * One level of a walk through mapped tables. MVI_STEP_NOT_PRESENT stands for every reason not to go on. `elsewhere`: the
 * tables may be in another mapping than the last ones were, which takes a call.
 */
static inline __attribute__((always_inline)) enum mvi_step mvi_walk_level(struct mvi_form form,
                                                                          const struct mvi_half *half, bool elsewhere,
                                                                          struct mvi_near_space *near, unsigned level,
                                                                          uint64_t address, uint64_t *found)
{
    uint64_t at = mvi_form_entry_at(form, level, *found, address);
    const uint8_t *bytes = near->entries.bytes + (at - near->entries.start);

    if (__builtin_expect(at - near->entries.start >= near->entries.span, 0) &&
        (!elsewhere || (bytes = mvi_word_elsewhere(near->table, at, &near->entries)) == NULL))
        return MVI_STEP_NOT_PRESENT;
    return mvi_form_step(form, half, level, mvi_entry_at_bytes(bytes, form.entry_size), found);
}

/* A walk. False: it did not end at a page. */
static inline bool mvi_walk_words(struct mvi_near_space *near, uint64_t address, uint64_t *physical)
{
    const struct mvi_space *space = &near->view->space;
    const struct mvi_half *half = mvi_half_of(space, address);
    enum mvi_step step = MVI_STEP_TABLE;
    struct mvi_form form;
    uint64_t found;
    unsigned level;

    if (half == NULL)
        return false;
    form = mvi_form_of(space, half);
    found = half->root;
    for (level = half->levels; step == MVI_STEP_TABLE; level--)
        step = mvi_walk_level(form, half, true, near, level, address, &found);
    *physical = found + (address & ((UINT64_C(1) << mvi_form_shift(form, level + 1)) - 1));
    return step == MVI_STEP_PAGE;
}

/* The same of x86 with four levels or five, without a loop: what follows from a level is known beforehand. */
static inline __attribute__((always_inline)) bool mvi_walk_long(struct mvi_near_space *near, uint64_t address,
                                                                uint64_t *physical)
{
    const struct mvi_half *half = near->view->space.halves; /* both are alike */
    const struct mvi_form form = mvi_long_form();
    enum mvi_step step = MVI_STEP_TABLE;
    uint64_t found = half->root, within = (UINT64_C(1) << 30) - 1;

    if (__builtin_expect((uint64_t)((int64_t)address >> half->address_bits) + 1 > 1, 0))
        return false; /* neither zeros nor ones: not canonical */
    if (__builtin_expect(half->levels == 5, 0))
        step = mvi_walk_level(form, half, false, near, 5, address, &found);
    if (__builtin_expect(step == MVI_STEP_TABLE, 1))
        step = mvi_walk_level(form, half, false, near, 4, address, &found);
    if (__builtin_expect(step == MVI_STEP_TABLE, 1))
        step = mvi_walk_level(form, half, false, near, 3, address, &found);
    if (__builtin_expect(step == MVI_STEP_TABLE, 1)) {
        within = (UINT64_C(1) << 21) - 1;
        step = mvi_walk_level(form, half, false, near, 2, address, &found);
    }
    if (__builtin_expect(step == MVI_STEP_TABLE, 1)) {
        within = PAGE_SIZE - 1;
        step = mvi_walk_level(form, half, false, near, 1, address, &found);
    }
    *physical = found + (address & within);
    return __builtin_expect(step == MVI_STEP_PAGE, 1);
}

/* Where a word is, by what is remembered, or by a walk. */
static inline bool mvi_word_through(struct mvi_translations *own, uint64_t address, uint64_t *physical)
{
    struct mvi_near_space *near = &own->near;

    if (near->keeps && near->flushes != __atomic_load_n(&near->table->flushes, __ATOMIC_ACQUIRE))
        return false;
    if (near->keeps && mvi_translation_get(own, near->key, address, physical))
        return true;
    if (!mvi_walk_words(near, address, physical))
        return false;
    if (near->keeps)
        mvi_translation_keep(own, near->key, address, *physical);
    return true;
}

#endif
