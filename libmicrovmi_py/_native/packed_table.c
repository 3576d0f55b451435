/* SPDX-License-Identifier: Apache-2.0 */
/* What tells which pages a dump has, and where: bitmaps and descriptors, looked at when it is opened; see packed.h. */
#include "pages.h"

#include <stdbool.h>
#include <string.h>

#define MVI_WORDS ((size_t)32) /* so many words are looked at before what was found in them is written down */

/* 8 bytes of a bitmap, the first the least one; zeros behind its end. */
static uint64_t mvi_bitmap_word(const uint8_t *bytes, size_t size, size_t at)
{
    uint64_t word = 0;

    if (size - at >= 8)
        memcpy(&word, bytes + at, 8);
    else
        memcpy(&word, bytes + at, size - at);
    return word;
}

/* How many words from there on, `most` at the most, are all zeros, or all ones: most of a bitmap is. */
static size_t mvi_same_words(const uint8_t *bytes, size_t most, bool ones)
{
    static const uint8_t same_bytes[2][512] = {[1] = {[0 ... 511] = 0xff}};
    const uint64_t same = ones ? UINT64_MAX : 0;
    uint64_t word;
    size_t count;

    for (count = 0; count + 64 <= most && memcmp(bytes + count * 8, same_bytes[ones], 512) == 0;)
        count += 64;
    for (; count < most; count++) {
        memcpy(&word, bytes + count * 8, 8);
        if (word != same)
            break;
    }
    return count;
}

/* Write down where the lowest of some bits is, if there is one: without a branch, which nobody could foretell. */
static inline size_t mvi_add_lowest(uint64_t *places, size_t count, uint64_t *bits, uint64_t first)
{
    uint64_t some = *bits != 0;

    places[count] = first + (uint64_t)__builtin_ctzll(*bits | (uint64_t)1 << 63);
    *bits &= *bits - some;
    return count + some;
}

/* Where a bit is not as the one before it, in `left` bits, MVI_WORDS words at the most; the last of them goes to *last. */
static size_t mvi_edges(const uint8_t *bytes, size_t size, uint64_t first, uint64_t left, uint64_t *last,
                        uint64_t *places)
{
    uint64_t word, edges, before = *last;
    size_t at, count = 0;

    for (at = 0; at < MVI_WORDS && at * 64 < left; at++, first += 64) {
        word = mvi_bitmap_word(bytes, size, at * 8);
        if (left - at * 64 < 64)
            word &= ((uint64_t)1 << (left - at * 64)) - 1;
        edges = word ^ (word << 1 | before);
        before = word >> 63;
        while (edges != 0) { /* most words have not more */
            count = mvi_add_lowest(places, count, &edges, first);
            count = mvi_add_lowest(places, count, &edges, first);
            count = mvi_add_lowest(places, count, &edges, first);
            count = mvi_add_lowest(places, count, &edges, first);
        }
    }
    *last = before;
    return count;
}

/* The run that is open, if one is, ends at the first of these places, and the next one begins at that behind. */
static void mvi_add_edges(struct mvi_bit_runs *found, const uint64_t *places, size_t count, bool open)
{
    size_t runs = found->count, i = open && count > 0;
    uint64_t ones = found->ones;

    if (i > 0) {
        found->ends[runs - 1] = places[0];
        ones += places[0] - found->starts[runs - 1];
    }
    for (; i + 1 < count; i += 2, runs++) {
        found->starts[runs] = places[i];
        found->ends[runs] = places[i + 1];
        found->before[runs] = ones;
        ones += places[i + 1] - places[i];
    }
    if (i < count) {
        found->starts[runs] = places[i];
        found->before[runs++] = ones;
    }
    found->count = runs;
    found->ones = ones;
}

size_t mvi_bitmap_runs(const uint8_t *bytes, size_t size, uint64_t first, uint64_t end, struct mvi_bit_runs *found)
{
    uint64_t places[MVI_WORDS * 64 + 4], last, left = end > first ? end - first : 0, at = 0;
    bool open = found->count > 0 && found->ends[found->count - 1] == first; /* it may go on */
    size_t count;

    left = left < (uint64_t)size * 8 ? left : (uint64_t)size * 8;
    if (open)
        found->ones -= first - found->starts[found->count - 1];
    while (at < left) {
        at += 64 * mvi_same_words(bytes + at / 8, (size_t)(left - at) / 64, open);
        last = open;
        count = mvi_edges(bytes + at / 8, size - (size_t)at / 8, first + at, left - at, &last, places);
        if (found->room - found->count < count / 2 + 1)
            break;
        mvi_add_edges(found, places, count, open);
        open = last;
        at = left - at < 64 * MVI_WORDS ? left : at + 64 * MVI_WORDS;
    }
    if (open) {
        found->ends[found->count - 1] = first + at;
        found->ones += first + at - found->starts[found->count - 1];
    }
    return at < left ? (size_t)at / 8 : size;
}

size_t mvi_descriptors_look(const uint8_t *bytes, size_t count, size_t page_size, uint64_t image_size, uint32_t *flags)
{
    struct mvi_descriptor descriptor;
    size_t i;

    for (i = 0; i < count; i++) {
        memcpy(&descriptor, bytes + i * sizeof descriptor, sizeof descriptor);
        if (descriptor.size == 0 || descriptor.size > page_size || descriptor.offset > image_size ||
            descriptor.size > image_size - descriptor.offset)
            return i;
        *flags |= descriptor.flag;
    }
    return count;
}
