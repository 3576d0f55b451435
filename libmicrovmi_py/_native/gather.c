/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads of many pages of virtual memory: all are translated first, and then read as a physical batch. Over another process's
 * memory the walks go level by level, so that a level of all of them takes one system call. In a mapping the processor
 * waits for the entries of several walks at once.
 */
#include "gather.h"

#include "through.h"

#include <stdlib.h>

/* So many pages are translated at once. */
#define MVI_GATHERED 256

/* Entries of a level that lie so near to each other, in bytes, are read in one piece, as far as there is room. */
#define MVI_ENTRIES_APART 1024
#define MVI_ENTRIES_ROOM ((size_t)64 << 10)

/* A part of a request that lies within one page. */
struct mvi_gathered {
    struct mvi_walk walk;
    uint8_t *buffer;
    size_t size;
    size_t request; /* which one it is of */
    int32_t code;
    bool walking;
    bool alone;    /* not all of it is memory: it is read by itself */
    uint32_t slot; /* where its next entry is put, in bytes, */
    uint32_t read; /* and which read of the batch brings it; then which one brings its bytes */
};

struct mvi_wanted {
    uint64_t address;
    size_t part;
};

struct mvi_gather {
    const struct mvi_table *table;
    const struct mvi_space *space;
    struct microvmi_read_request *requests;
    size_t count;           /* of requests */
    size_t next, next_at;   /* the request, and the place in it, that is to be gathered next */
    size_t gathered, reads; /* of the following */
    struct mvi_gathered parts[MVI_GATHERED];
    struct microvmi_read_request batch[MVI_GATHERED];
    size_t of[MVI_GATHERED]; /* which request a read of bytes is of */
    struct mvi_wanted wanted[MVI_GATHERED];
    uint8_t entries[MVI_ENTRIES_ROOM];
};

/* ------------------------------------------------------------------------------------------------ walks ---------- */

static int mvi_gather_order(const void *first, const void *second)
{
    const struct mvi_wanted *one = first, *other = second;

    return (one->address > other->address) - (one->address < other->address);
}

/* Which entries are needed, in the order of their addresses; how many. */
static size_t mvi_gather_want(struct mvi_gather *gather)
{
    size_t index, count = 0;
    bool sorted = true;

    for (index = 0; index < gather->gathered; index++) {
        if (!gather->parts[index].walking)
            continue;
        gather->wanted[count] = (struct mvi_wanted){gather->parts[index].walk.entry_address, index};
        sorted = sorted && (count == 0 || gather->wanted[count - 1].address <= gather->wanted[count].address);
        count++;
    }
    if (!sorted)
        qsort(gather->wanted, count, sizeof *gather->wanted, mvi_gather_order);
    return count;
}

/* Ask for them: once for several walks, and in one piece what lies near. `left` of them are still to come. */
static void mvi_gather_ask(struct mvi_gather *gather, const struct mvi_wanted *wanted, size_t left, size_t *used)
{
    struct microvmi_read_request *last = gather->reads > 0 ? &gather->batch[gather->reads - 1] : NULL;
    size_t size = gather->space->entry_size, more;
    struct mvi_gathered *part = &gather->parts[wanted->part];

    more = last != NULL ? (size_t)(wanted->address + size - last->physical_address) : 0;
    if (last == NULL || wanted->address - last->physical_address > last->size + MVI_ENTRIES_APART ||
        (more > last->size && *used + (more - last->size) + left * size > MVI_ENTRIES_ROOM)) {
        last = &gather->batch[gather->reads++];
        *last = (struct microvmi_read_request){.buffer = gather->entries + *used};
        last->physical_address = wanted->address;
        more = size;
    }
    if (more > last->size) {
        *used += more - last->size;
        last->size = more;
    }
    part->slot = (uint32_t)((size_t)(last->buffer - gather->entries) + more - size);
    part->read = (uint32_t)gather->reads - 1;
}

/* The entry came, or is asked for alone: another one may have been missing in the same piece. */
static void mvi_gather_feed(const struct mvi_gather *gather, struct mvi_gathered *part)
{
    const struct microvmi_read_request *read = &gather->batch[part->read];
    const uint8_t *bytes = gather->entries + part->slot;
    uint32_t size = gather->space->entry_size;
    uint64_t entry;

    part->code = MICROVMI_OK;
    if ((uint64_t)(bytes - read->buffer) + size <= read->bytes_read)
        entry = mvi_entry_at_bytes(bytes, size);
    else
        part->code = mvi_entry_find(gather->table, part->walk.entry_address, size, &entry);
    if (part->code == MICROVMI_OK && mvi_walk_next(gather->space, &part->walk, entry))
        return;
    if (part->code == MICROVMI_ERROR_NOT_MAPPED)
        mvi_walk_refuse(&part->walk);
    else if (part->code == MICROVMI_OK && part->walk.failure != MICROVMI_TRANSLATION_OK)
        part->code = MICROVMI_ERROR_NOT_MAPPED;
    part->walking = false;
}

/* All walks, level by level. */
static void mvi_gather_levels(struct mvi_gather *gather)
{
    size_t index, count, used;

    while ((count = mvi_gather_want(gather)) > 0) {
        gather->reads = used = 0;
        for (index = 0; index < count; index++)
            mvi_gather_ask(gather, &gather->wanted[index], count - index, &used);
        (void)mvi_table_read_batch(gather->table, gather->batch, gather->reads);
        for (index = 0; index < count; index++)
            mvi_gather_feed(gather, &gather->parts[gather->wanted[index].part]);
    }
}

/* ------------------------------------------------------------------------------------------------ parts ---------- */

static void mvi_gather_one(struct mvi_gather *gather, uint64_t key, bool mapped)
{
    const struct microvmi_read_request *request = &gather->requests[gather->next];
    struct mvi_gathered *part = &gather->parts[gather->gathered++];
    uint64_t address = request->virtual_address + gather->next_at;

    part->buffer = request->buffer + gather->next_at;
    part->size = request->size - gather->next_at;
    part->request = gather->next;
    part->walking = false;
    part->code = MICROVMI_ERROR_NOT_MAPPED;
    part->walk.level = 0; /* nothing to be kept, unless a walk says so */
    part->read = 0;
    if (address >= request->virtual_address) { /* behind the last address there is none */
        part->size = mvi_smaller(part->size, PAGE_SIZE - (address & (PAGE_SIZE - 1)));
        if (key != 0 && mvi_translation_get(mvi_thread.translations, key, address, &part->walk.address))
            part->code = MICROVMI_OK;
        else if (mapped)
            part->code = mvi_walk_through(gather->table, gather->space, &part->walk, address);
        else if (mvi_walk_start(gather->space, &part->walk, address))
            part->walking = true;
        else if (part->walk.failure == MICROVMI_TRANSLATION_OK)
            part->code = MICROVMI_OK;
    }
    gather->next_at += part->size;
}

/* The next parts, and where they are. */
static void mvi_gather_parts(struct mvi_gather *gather)
{
    uint64_t key = mvi_translations_key(gather->table, gather->space);
    const struct mvi_table *table = gather->table;
    size_t root = mvi_first(table, gather->space->halves[0].root), index;
    bool mapped = root < table->count && table->regions[root].bytes != NULL;

    gather->gathered = 0;
    while (gather->next < gather->count && gather->gathered < MVI_GATHERED) {
        if (gather->next_at < gather->requests[gather->next].size &&
            gather->requests[gather->next].error == MICROVMI_OK) {
            mvi_gather_one(gather, key, mapped);
        } else {
            gather->next++;
            gather->next_at = 0;
        }
    }
    mvi_gather_levels(gather);
    for (index = 0; key != 0 && index < gather->gathered; index++)
        if (gather->parts[index].code == MICROVMI_OK && gather->parts[index].walk.level > 0)
            mvi_translation_keep(mvi_thread.translations, key, gather->parts[index].walk.virtual_address,
                                 gather->parts[index].walk.address);
}

/* ------------------------------------------------------------------------------------------------ bytes ---------- */

/* Whether there is memory for so many bytes. */
static bool mvi_is_there(const struct mvi_table *table, uint64_t address, size_t size)
{
    size_t index = mvi_first(table, address), at = 0;

    for (; at < size && index < table->count && mvi_holds(&table->regions[index], address + at); index++)
        at += mvi_smaller(mvi_last(&table->regions[index]) - (address + at), size - at - 1) + 1;
    return at == size;
}

/* Add what was found to the batch; parts of a request that follow each other in both memories are one read. */
static void mvi_gather_add(struct mvi_gather *gather, struct mvi_gathered *part)
{
    struct microvmi_read_request *last = gather->reads > 0 ? &gather->batch[gather->reads - 1] : NULL;

    if (last == NULL || gather->of[gather->reads - 1] != part->request || last->buffer + last->size != part->buffer ||
        last->physical_address + last->size != part->walk.address) {
        last = &gather->batch[gather->reads++];
        *last = (struct microvmi_read_request){.buffer = part->buffer};
        last->physical_address = part->walk.address;
    }
    part->read = (uint32_t)gather->reads - 1;
    gather->of[part->read] = part->request;
    last->size += part->size;
}

/* Do the reads. Behind one that is not whole the others of its request are left: a prefix ends there. */
static void mvi_gather_fetch(struct mvi_gather *gather)
{
    size_t index = 0, last;

    while (index < gather->reads) {
        index += mvi_table_read_some(gather->table, &gather->batch[index], gather->reads - index);
        last = index - 1;
        while (gather->batch[last].error != MICROVMI_OK && index < gather->reads &&
               gather->of[index] == gather->of[last])
            index++;
    }
}

/* Whether a request ends at a part, unless it is all there. */
static bool mvi_is_end(const struct mvi_gathered *part, bool padded)
{
    return !padded || (part->code != MICROVMI_OK && part->code != MICROVMI_ERROR_NOT_MAPPED);
}

/* Read what was found. Behind a part that is not there the buffer stays as it is, unless it is padded. */
static void mvi_gather_bytes(struct mvi_gather *gather, bool padded)
{
    size_t index, ended = SIZE_MAX;
    struct mvi_gathered *part;

    gather->reads = 0;
    for (index = 0; index < gather->gathered; index++) {
        part = &gather->parts[index];
        part->alone = part->code == MICROVMI_OK && !mvi_is_there(gather->table, part->walk.address, part->size);
        if (part->code == MICROVMI_OK && !part->alone && part->request != ended)
            mvi_gather_add(gather, part);
        else if (mvi_is_end(part, padded))
            ended = part->request;
    }
    mvi_gather_fetch(gather);
}

/* What became of a part: its code, and how much of it there is. */
static int32_t mvi_gather_result(const struct mvi_gather *gather, bool padded, const struct mvi_gathered *part,
                                 uint64_t *got)
{
    const struct microvmi_read_request *read = &gather->batch[part->read];
    uint64_t before;

    *got = 0;
    if (part->code == MICROVMI_ERROR_NOT_MAPPED && padded) {
        memset(part->buffer, 0, part->size);
        *got = part->size;
        return MICROVMI_OK;
    }
    if (part->code != MICROVMI_OK)
        return part->code;
    if (part->alone)
        return mvi_table_read(gather->table, padded, part->walk.address, part->buffer, part->size, got);
    before = (uint64_t)(part->buffer - read->buffer);
    *got = read->bytes_read > before ? mvi_smaller(read->bytes_read - before, part->size) : 0;
    return *got == part->size ? MICROVMI_OK : read->error;
}

static void mvi_gather_tell(struct mvi_gather *gather, bool padded)
{
    struct microvmi_read_request *request;
    size_t index;
    uint64_t got;

    for (index = 0; index < gather->gathered; index++) {
        request = &gather->requests[gather->parts[index].request];
        if (request->error != MICROVMI_OK)
            continue;
        request->error = mvi_gather_result(gather, padded, &gather->parts[index], &got);
        request->bytes_read += got;
    }
}

bool mvi_gather_read(const struct mvi_table *table, const struct mvi_space *space, bool padded,
                     struct microvmi_read_request *requests, size_t count)
{
    struct mvi_gather *gather = malloc(sizeof *gather);
    size_t index;

    if (gather == NULL)
        return false;
    gather->table = table;
    gather->space = space;
    gather->requests = requests;
    gather->count = count;
    gather->next = gather->next_at = 0;
    for (index = 0; index < count; index++) {
        requests[index].bytes_read = 0;
        requests[index].error = MICROVMI_OK;
    }
    while (gather->next < count) {
        mvi_gather_parts(gather);
        mvi_gather_bytes(gather, padded);
        mvi_gather_tell(gather, padded);
    }
    free(gather);
    return true;
}
