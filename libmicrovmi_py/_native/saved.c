/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The records of pages in a saved machine of QEMU; see saved.h.
 *
 * A record is a big-endian number of an offset in a block and flags, and then the page. Those that come by the million are
 * of the block of the record before, and have all bytes of the page, or the one that it consists of.
 */
#include "internal.h"

#include "saved.h"

#include <string.h>

#define SAVED_BYTE 0x02
#define SAVED_PAGE 0x08
#define SAVED_SAME_BLOCK 0x20
#define SAVED_HEAD 8

static uint64_t saved_head(const uint8_t *bytes)
{
    uint64_t word;

    memcpy(&word, bytes, sizeof word);
    return __builtin_bswap64(word);
}

/* Take over the page of a record, which is at `position`; false: it is left to others. */
static bool saved_take(struct mvi_saved_walk *walk, const uint8_t *bytes, uint64_t begin, uint64_t size,
                       uint64_t position, uint64_t word)
{
    uint64_t flags = word & (PAGE_SIZE - 1), offset = word - flags, number = walk->first + (offset >> PAGE_SHIFT);
    uint64_t entry, length;

    if (offset >= walk->size || number >= walk->room)
        return false;
    if (flags == (SAVED_PAGE | SAVED_SAME_BLOCK)) {
        length = PAGE_SIZE;
        entry = position << 3 | MVI_SAVED_AS_IT_IS;
    } else if (flags == (SAVED_BYTE | SAVED_SAME_BLOCK) && position - begin < size) {
        length = 1;
        entry = (uint64_t)bytes[position - begin] << 3 | MVI_SAVED_BYTE;
    } else {
        return false;
    }
    if (position > walk->end || walk->end - position < length)
        return false;
    walk->entries[number] = entry;
    walk->position = position + length;
    walk->records++;
    return true;
}

void mvi_saved_walk(struct mvi_saved_walk *walk, const uint8_t *bytes, uint64_t begin, uint64_t size)
{
    uint64_t place;

    if (walk->word != 0 && !saved_take(walk, bytes, begin, size, walk->position, walk->word))
        return;
    walk->word = 0;
    do {
        place = walk->position - begin; /* beyond all sizes for what is before `begin` */
    } while (place < size && size - place >= SAVED_HEAD &&
             saved_take(walk, bytes, begin, size, walk->position + SAVED_HEAD, saved_head(bytes + place)));
}

uint64_t mvi_saved_next(const uint64_t *entries, uint64_t first, uint64_t end, bool there)
{
    while (first < end && (entries[first] != 0) != there)
        first++;
    return first;
}
