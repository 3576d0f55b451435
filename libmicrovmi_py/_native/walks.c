/* SPDX-License-Identifier: Apache-2.0 */
/* Many walks at once, whose entries Python reads level by level; declared in virtual.h. */
#include "paging.h"

static bool mvi_walk_is_over(const struct mvi_walk *walk)
{
    return walk->level == 0 || walk->failure != MICROVMI_TRANSLATION_OK || walk->address != MICROVMI_ADDRESS_UNKNOWN;
}

/* One more place that is needed, unless it is that of the walk before. */
static size_t mvi_places_add(uint64_t *places, size_t needed, uint64_t place)
{
    if (needed == 0 || places[needed - 1] != place)
        places[needed++] = place;
    return needed;
}

size_t mvi_walks_begin(const struct mvi_space *space, struct mvi_walk *walks, const uint64_t *addresses, size_t count,
                       uint64_t *places)
{
    size_t index, needed = 0;

    for (index = 0; index < count; index++)
        if (mvi_walk_start(space, &walks[index], addresses[index]))
            needed = mvi_places_add(places, needed, walks[index].entry_address);
    return needed;
}

/* Which of the places that were read is this one, which is among them. */
static size_t mvi_place_find(const uint64_t *read, size_t count, uint64_t place)
{
    size_t low = 0, high = count, middle;

    while (high - low > 1) {
        middle = low + (high - low) / 2;
        if (read[middle] <= place)
            low = middle;
        else
            high = middle;
    }
    return low;
}

size_t mvi_walks_feed(const struct mvi_space *space, struct mvi_walk *walks, size_t count, const uint64_t *read,
                      const uint64_t *entries, const bool *there, size_t read_count, uint64_t *places)
{
    size_t index, at, needed = 0;

    for (index = 0; index < count; index++) {
        if (mvi_walk_is_over(&walks[index]))
            continue;
        at = mvi_place_find(read, read_count, walks[index].entry_address);
        if (!there[at])
            mvi_walk_refuse(&walks[index]);
        else if (mvi_walk_next(space, &walks[index], entries[at]))
            needed = mvi_places_add(places, needed, walks[index].entry_address);
    }
    return needed;
}

void mvi_walks_tell(const struct mvi_space *space, const struct mvi_walk *walks, size_t count,
                    struct microvmi_translation *translations, uint64_t *physical)
{
    size_t index;

    for (index = 0; index < count; index++) {
        mvi_walk_tell(space, &walks[index], &translations[index]);
        physical[index] =
            walks[index].failure == MICROVMI_TRANSLATION_OK ? walks[index].address : MICROVMI_ADDRESS_UNKNOWN;
    }
}
