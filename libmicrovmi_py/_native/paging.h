/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rules of page tables: what an entry says, and how a walk goes from one to the next. They are inlined where many
 * walks are done. Whoever walks reads the entries, each of them once.
 */
#ifndef MVI_PAGING_H
#define MVI_PAGING_H

#include "table.h"

#include "virtual.h"

#define MVI_KERNEL_RIGHTS (MICROVMI_KERNEL_READ | MICROVMI_KERNEL_WRITE | MICROVMI_KERNEL_EXECUTE)
#define MVI_USER_RIGHTS (MICROVMI_USER_READ | MICROVMI_USER_WRITE | MICROVMI_USER_EXECUTE)
#define MVI_WRITE_RIGHTS (MICROVMI_KERNEL_WRITE | MICROVMI_USER_WRITE)
#define MVI_EXECUTE_RIGHTS (MICROVMI_KERNEL_EXECUTE | MICROVMI_USER_EXECUTE)
#define MVI_ALL_RIGHTS (MVI_KERNEL_RIGHTS | MVI_USER_RIGHTS)

/* paging.c: the same as mvi_walk_reach() for an address for which there are no tables. */
uint64_t mvi_space_reach(const struct mvi_space *space, uint64_t address);

/* paging.c: what becomes of a walk to an address for which there are no tables. */
void mvi_walk_nowhere(const struct mvi_space *space, struct mvi_walk *walk);

/* What an entry is. */
enum mvi_step {
    MVI_STEP_TABLE,
    MVI_STEP_PAGE,
    MVI_STEP_NOT_PRESENT,
    MVI_STEP_RESERVED
};

/*
 * What entries look like. The same for all of a half, and handed on by value: where walks are to be quick the compiler is
 * told what it is, and does what follows from it beforehand.
 */
struct mvi_form {
    bool aarch64;
    bool far;
    uint32_t entry_size;
    uint32_t levels, page_shift, level_bits, top_bits;
    uint64_t large_bit;
};

static inline struct mvi_form mvi_form_of(const struct mvi_space *space, const struct mvi_half *half)
{
    return (struct mvi_form){
        .aarch64 = space->aarch64,
        .far = half->far,
        .entry_size = space->entry_size,
        .levels = half->levels,
        .page_shift = half->page_shift,
        .level_bits = half->level_bits,
        .top_bits = half->top_bits,
        .large_bit = space->large_bit,
    };
}

/* That of x86 with four levels and with five. */
static inline struct mvi_form mvi_long_form(void)
{
    return (struct mvi_form){.entry_size = 8, .page_shift = 12, .level_bits = 9, .top_bits = 9, .large_bit = 0x80};
}

/* How far an address is shifted for its index at a level: the logarithm of the size of a page of that level. */
static inline unsigned mvi_form_shift(struct mvi_form form, unsigned level)
{
    return form.page_shift + (level - 1) * form.level_bits;
}

static inline unsigned mvi_level_shift(const struct mvi_half *half, unsigned level)
{
    return half->page_shift + (level - 1) * half->level_bits;
}

/* How many entries a table of a level has. */
static inline uint64_t mvi_level_entries(const struct mvi_half *half, unsigned level)
{
    return UINT64_C(1) << (level == half->levels ? half->top_bits : half->level_bits);
}

/* Whether a half has an address: the bits above those that are looked up are all alike. */
static inline bool mvi_is_canonical(const struct mvi_half *half, unsigned which, uint64_t address)
{
    int64_t rest = (int64_t)(address << half->ignored_bits) >> half->ignored_bits >> half->address_bits;

    return half->levels != 0 && rest == -(int64_t)which;
}

/* The half that has an address, and tables for it; NULL: there are none. */
static inline const struct mvi_half *mvi_half_of(const struct mvi_space *space, uint64_t address)
{
    unsigned which = (unsigned)(address >> space->choosing_bit) & 1;
    const struct mvi_half *half = &space->halves[which];

    return __builtin_expect(mvi_is_canonical(half, which, address) && !half->closed, 1) ? half : NULL;
}

/* Where the entry for an address lies in a table of a level. */
static inline uint64_t mvi_form_entry_at(struct mvi_form form, unsigned level, uint64_t table, uint64_t address)
{
    unsigned bits = form.top_bits != form.level_bits && level == form.levels ? form.top_bits : form.level_bits;

    return table + (address >> mvi_form_shift(form, level) & ((UINT64_C(1) << bits) - 1)) * form.entry_size;
}

static inline uint64_t mvi_entry_at(const struct mvi_space *space, const struct mvi_half *half, unsigned level,
                                    uint64_t table, uint64_t address)
{
    return mvi_form_entry_at(mvi_form_of(space, half), level, table, address);
}

/* The physical address in the entry of a large page: of 4 MiB ones bits 13 to 20 are bits 32 to 39 of it. */
static inline uint64_t mvi_large_frame(struct mvi_form form, unsigned level, uint64_t entry, uint64_t frame)
{
    unsigned shift = mvi_form_shift(form, level);

    frame = frame >> shift << shift;
    return form.entry_size == 4 ? frame | (entry >> 13 & 0xff) << 32 : frame;
}

static inline enum mvi_step mvi_form_step(struct mvi_form form, const struct mvi_half *half, unsigned level,
                                          uint64_t entry, uint64_t *address)
{
    bool large = form.aarch64 ? (entry & 2) == 0 : level > 1 && (entry & form.large_bit) != 0;
    uint64_t frame = entry & half->frame_bits;

    if (__builtin_expect((entry & 1) == 0, 0))
        return MVI_STEP_NOT_PRESENT;
    if (__builtin_expect((entry & (large ? half->reserved_large : half->reserved)[level - 1]) != 0, 0))
        return MVI_STEP_RESERVED;
    if (__builtin_expect(form.far, 0))
        frame |= (entry >> 12 & 15) << 48;
    *address = large ? mvi_large_frame(form, level, entry, frame) : frame;
    return large || level == 1 ? MVI_STEP_PAGE : MVI_STEP_TABLE;
}

/* What an entry of a level is; `address`: of the next table, or of the page. */
static inline enum mvi_step mvi_step(const struct mvi_space *space, const struct mvi_half *half, unsigned level,
                                     uint64_t entry, uint64_t *address)
{
    return mvi_form_step(mvi_form_of(space, half), half, level, entry, address);
}

static inline uint32_t mvi_allow_x86(const struct mvi_space *space, unsigned level, uint64_t entry, uint32_t rights)
{
    if (space->given.paging == MICROVMI_PAGING_X86_PAE && level == 3)
        return rights; /* these entries have no such bits */
    if ((entry & 2) == 0)
        rights &= ~(uint32_t)MVI_WRITE_RIGHTS;
    if ((entry & 4) == 0)
        rights &= ~(uint32_t)MVI_USER_RIGHTS;
    return entry >> 63 != 0 ? rights & ~(uint32_t)MVI_EXECUTE_RIGHTS : rights;
}

/* What EL0 may write EL1 does not execute. What EL0 may not read it may execute all the same, if the tables say so. */
static inline uint32_t mvi_allow_aarch64_page(const struct mvi_space *space, uint64_t entry, uint32_t rights)
{
    if ((entry >> 7 & 1) != 0 && !(space->dirty && (entry >> 51 & 1) != 0))
        rights &= ~(uint32_t)MVI_WRITE_RIGHTS;
    if ((entry >> 6 & 1) == 0)
        rights &= ~(uint32_t)(MICROVMI_USER_READ | MICROVMI_USER_WRITE);
    if ((entry >> 54 & 1) != 0)
        rights &= ~(uint32_t)MICROVMI_USER_EXECUTE;
    if ((entry >> 53 & 1) != 0 || (rights & MICROVMI_USER_WRITE) != 0)
        rights &= ~(uint32_t)MICROVMI_KERNEL_EXECUTE;
    return rights;
}

static inline uint32_t mvi_allow_aarch64_table(uint64_t entry, uint32_t rights)
{
    if ((entry >> 62 & 1) != 0)
        rights &= ~(uint32_t)MVI_WRITE_RIGHTS;
    if ((entry >> 61 & 1) != 0)
        rights &= ~(uint32_t)(MICROVMI_USER_READ | MICROVMI_USER_WRITE);
    if ((entry >> 60 & 1) != 0)
        rights &= ~(uint32_t)MICROVMI_USER_EXECUTE;
    return (entry >> 59 & 1) != 0 ? rights & ~(uint32_t)MICROVMI_KERNEL_EXECUTE : rights;
}

/* What is left of rights behind an entry; a walk begins with MVI_ALL_RIGHTS. */
static inline uint32_t mvi_allow(const struct mvi_space *space, const struct mvi_half *half, unsigned level,
                                 bool is_page, uint64_t entry, uint32_t rights)
{
    if (!space->aarch64)
        return mvi_allow_x86(space, level, entry, rights);
    if (is_page)
        return mvi_allow_aarch64_page(space, entry, rights);
    return half->plain ? rights : mvi_allow_aarch64_table(entry, rights);
}

/* ------------------------------------------------------------------------------------------------ a walk --------- */

/* True: an entry is needed. False: the walk is over. */
static inline bool mvi_walk_start(const struct mvi_space *space, struct mvi_walk *walk, uint64_t address)
{
    const struct mvi_half *half = mvi_half_of(space, address);

    *walk = (struct mvi_walk){.virtual_address = address, .address = MICROVMI_ADDRESS_UNKNOWN};
    walk->entry_address = MICROVMI_ADDRESS_UNKNOWN;
    if (__builtin_expect(half == NULL, 0)) {
        mvi_walk_nowhere(space, walk);
        return false;
    }
    walk->half = half != space->halves;
    walk->level = half->levels;
    walk->rights = MVI_ALL_RIGHTS;
    walk->entry_address = mvi_entry_at(space, half, half->levels, half->root, address);
    return true;
}

/* Go on with the value of the entry that was needed. True: another one is. */
static inline bool mvi_walk_next(const struct mvi_space *space, struct mvi_walk *walk, uint64_t entry)
{
    const struct mvi_half *half = &space->halves[walk->half];
    uint64_t address = 0, offset;
    enum mvi_step step = mvi_step(space, half, walk->level, entry, &address);

    walk->entry = entry;
    if (__builtin_expect(step == MVI_STEP_NOT_PRESENT || step == MVI_STEP_RESERVED, 0)) {
        walk->failure =
            step == MVI_STEP_NOT_PRESENT ? MICROVMI_TRANSLATION_NOT_PRESENT : MICROVMI_TRANSLATION_RESERVED_BITS;
        walk->rights = 0;
        return false;
    }
    walk->rights = mvi_allow(space, half, walk->level, step == MVI_STEP_PAGE, entry, walk->rights);
    if (step == MVI_STEP_TABLE) {
        walk->level--;
        walk->entry_address = mvi_entry_at(space, half, walk->level, address, walk->virtual_address);
        return true;
    }
    offset = walk->virtual_address & ((UINT64_C(1) << mvi_level_shift(half, walk->level)) - 1);
    walk->address = address + offset;
    return false;
}

/* From the address of a walk that is over: so many bytes are mapped the same way, or not mapped for the same reason. One
 * less, as it may be all there are. */
static inline uint64_t mvi_walk_reach(const struct mvi_space *space, const struct mvi_walk *walk)
{
    uint64_t size;

    if (__builtin_expect(walk->level == 0, 0))
        return mvi_space_reach(space, walk->virtual_address);
    size = UINT64_C(1) << mvi_level_shift(&space->halves[walk->half], walk->level);
    return size - 1 - (walk->virtual_address & (size - 1));
}

#endif
