/* SPDX-License-Identifier: Apache-2.0 */
/* Walks that read their entries from the table of physical memory, whatever that is made of. */
#ifndef MVI_THROUGH_H
#define MVI_THROUGH_H

#include "sparse.h"
#include "words.h"

/* virtual.c: an entry that is not in the mapping that was read last. */
int32_t mvi_entry_find(const struct mvi_table *table, uint64_t address, uint32_t size, uint64_t *entry);

/* Read an entry, by its physical address. */
static inline int32_t mvi_entry_load(const struct mvi_table *table, uint64_t address, uint32_t size, uint64_t *entry)
{
    const uint8_t *bytes = mvi_table_hit(table, mvi_thread.last_hit, address, size);

    if (__builtin_expect(bytes == NULL, 0))
        return mvi_entry_find(table, address, size, entry);
    *entry = mvi_entry_at_bytes(bytes, size);
    return MICROVMI_OK;
}

/*
 * Walk to an address. MICROVMI_ERROR_NOT_MAPPED: the walk has the failure; another error is that of reading an entry. `path`:
 * NULL, or where to write down the entries.
 */
static inline int32_t mvi_walk_along(const struct mvi_table *table, const struct mvi_space *space,
                                     struct mvi_walk *walk, uint64_t address, struct mvi_path *path)
{
    bool more = mvi_walk_start(space, walk, address);
    uint64_t entry;
    int32_t code;

    while (more) {
        code = mvi_entry_load(table, walk->entry_address, space->entry_size, &entry);
        if (path != NULL) {
            path->address[path->count] = walk->entry_address;
            path->entry[path->count++] = entry;
        }
        if (__builtin_expect(code == MICROVMI_OK, 1)) {
            more = mvi_walk_next(space, walk, entry);
        } else if (code == MICROVMI_ERROR_NOT_MAPPED) {
            mvi_walk_refuse(walk);
            break;
        } else {
            return code;
        }
    }
    return walk->failure == MICROVMI_TRANSLATION_OK ? MICROVMI_OK : MICROVMI_ERROR_NOT_MAPPED;
}

static inline int32_t mvi_walk_through(const struct mvi_table *table, const struct mvi_space *space,
                                       struct mvi_walk *walk, uint64_t address)
{
    return mvi_walk_along(table, space, walk, address, NULL);
}

/*
 * path.c: read within a page of the memory of another process that runs, by a walk that is remembered or from then on
 * remembered. False, with nothing done: not that case, or it did not succeed as a whole.
 */
bool mvi_path_read(const struct mvi_table *table, const struct mvi_space *space, uint64_t address, uint8_t *buffer,
                   size_t size);

#endif
