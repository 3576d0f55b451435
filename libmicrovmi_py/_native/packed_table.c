/* SPDX-License-Identifier: Apache-2.0 */
/* What tells which pages a dump has, and where: bitmaps and descriptors, looked at when it is opened; see packed.h. */
#include "pages.h"

#include <string.h>

static void mvi_add_run(struct mvi_bit_runs *found, uint64_t start, uint64_t ones)
{
    size_t last = found->count - 1;

    if (found->count > 0 && found->ends[last] == start) {
        found->ends[last] += ones;
    } else {
        found->starts[found->count] = start;
        found->ends[found->count] = start + ones;
        found->before[found->count++] = found->ones;
    }
    found->ones += ones;
}

/* The runs in 64 bits, of which `bit` is the first, and not all of which are ones. */
static void mvi_add_mixed(struct mvi_bit_runs *found, uint64_t word, uint64_t bit)
{
    unsigned skip, ones;

    for (; word != 0; word >>= ones, bit += ones) {
        skip = (unsigned)__builtin_ctzll(word);
        word >>= skip;
        bit += skip;
        ones = (unsigned)__builtin_ctzll(~word);
        mvi_add_run(found, bit, ones);
    }
}

/* How many words from there on, `most` at the most, are all this one: most of a bitmap is zeros, or ones. */
static size_t mvi_same_words(const uint8_t *bytes, size_t most, uint64_t same)
{
    uint64_t word;
    size_t count;

    for (count = 0; count < most; count++) {
        memcpy(&word, bytes + count * 8, 8);
        if (word != same)
            break;
    }
    return count;
}

size_t mvi_bitmap_runs(const uint8_t *bytes, size_t size, uint64_t first, uint64_t end, struct mvi_bit_runs *found)
{
    uint64_t word, left;
    size_t at, same;

    for (at = 0; at < size && first + at * 8 < end; at += 8) {
        left = end - (first + at * 8);
        word = 0;
        memcpy(&word, bytes + at, size - at < 8 ? size - at : 8);
        if (left < 64)
            word &= ((uint64_t)1 << left) - 1;
        if (word != 0 && found->room - found->count < 32) /* it has that many runs at the most */
            return at;
        if (word != 0 && ~word != 0) {
            mvi_add_mixed(found, word, first + at * 8);
            continue;
        }
        same = (size - at) / 8 < left / 64 ? (size - at) / 8 : (size_t)(left / 64);
        same = mvi_same_words(bytes + at, same, word);
        if (word != 0)
            mvi_add_run(found, first + at * 8, same * 64);
        at += same > 0 ? (same - 1) * 8 : 0;
    }
    return size;
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
