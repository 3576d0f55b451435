/* SPDX-License-Identifier: Apache-2.0 */
/* Virtual memory by the table of physical memory: walks that read their entries here, and what is read through them. */
#include "sparse.h"
#include "gather.h"
#include "through.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------------ walks ---------- */

__attribute__((noinline)) int32_t mvi_entry_find(const struct mvi_table *table, uint64_t address, uint32_t size,
                                                 uint64_t *entry)
{
    const uint8_t *bytes = mvi_table_hit(table, mvi_first(table, address), address, size);
    uint64_t done = 0;

    if (bytes != NULL) {
        *entry = mvi_entry_at_bytes(bytes, size);
        return MICROVMI_OK;
    }
    *entry = 0;
    return mvi_table_read(table, false, address, (uint8_t *)entry, size, &done);
}

int32_t mvi_virtual_translate(const struct mvi_table *table, const struct mvi_space *space, uint64_t address,
                              struct microvmi_translation *translation)
{
    struct mvi_walk walk;
    int32_t code = mvi_walk_through(table, space, &walk, address);

    mvi_walk_tell(space, &walk, translation);
    return code;
}

/* ------------------------------------------------------------------------------------------------ runs ----------- */

/* A part of an access that is in one piece, or missing for one reason. */
struct mvi_run {
    struct mvi_walk walk; /* unless it is `kept` */
    uint64_t physical;
    size_t size;
    bool kept; /* a translation that was remembered */
};

/* Behind the last address there is none. */
static int32_t mvi_run_out(struct mvi_run *run, size_t left)
{
    *run = (struct mvi_run){.size = left};
    run->walk.entry_address = run->walk.address = MICROVMI_ADDRESS_UNKNOWN;
    run->walk.failure = MICROVMI_TRANSLATION_NOT_CANONICAL;
    return MICROVMI_ERROR_NOT_MAPPED;
}

void mvi_virtual_end(const struct mvi_table *table, const struct mvi_space *space, uint64_t address, uint64_t done,
                     struct microvmi_translation *end)
{
    struct mvi_run run;

    if (address + done >= address) {
        (void)mvi_virtual_translate(table, space, address + done, end);
        return;
    }
    (void)mvi_run_out(&run, 0);
    mvi_walk_tell(space, &run.walk, end);
}

/* The run from address + at on, of `left` bytes, at least one. Codes are those of mvi_walk_through(). */
static inline int32_t mvi_run_find(const struct mvi_table *table, const struct mvi_space *space, uint64_t key,
                                   uint64_t address, size_t at, size_t left, struct mvi_run *run)
{
    uint64_t from = address + at;
    bool small = key != 0 && left <= PAGE_SIZE - (from & (PAGE_SIZE - 1));
    int32_t code;

    if (__builtin_expect(from < address, 0))
        return mvi_run_out(run, left);
    run->kept = small && mvi_translation_get(mvi_thread.translations, key, from, &run->physical);
    run->size = left;
    if (run->kept)
        return MICROVMI_OK;
    code = mvi_walk_through(table, space, &run->walk, from);
    run->physical = run->walk.address;
    run->size = mvi_smaller(mvi_walk_reach(space, &run->walk), left - 1) + 1;
    if (small && code == MICROVMI_OK)
        mvi_translation_keep(mvi_thread.translations, key, from, run->physical);
    return code;
}

/* What an access ended at that met no memory, at an offset into the run. */
static void mvi_run_tell(const struct mvi_table *table, const struct mvi_space *space, struct mvi_run *run,
                         uint64_t address, size_t offset, struct microvmi_translation *end)
{
    if (run->kept)
        (void)mvi_walk_through(table, space, &run->walk, address);
    mvi_walk_tell(space, &run->walk, end);
    if (end->failure == MICROVMI_TRANSLATION_OK)
        end->physical_address += offset;
}

/* ------------------------------------------------------------------------------------------------ reading -------- */

static int32_t mvi_run_read(const struct mvi_table *table, bool padded, const struct mvi_run *run, int32_t code,
                            uint8_t *buffer, size_t *got)
{
    uint64_t done = 0;

    *got = 0;
    if (code == MICROVMI_OK) {
        code = mvi_table_read(table, padded, run->physical, buffer, run->size, &done);
        *got = (size_t)done;
    } else if (code == MICROVMI_ERROR_NOT_MAPPED && padded) {
        memset(buffer, 0, run->size);
        *got = run->size;
        code = MICROVMI_OK;
    }
    return code;
}

static int32_t mvi_read_runs(const struct mvi_table *table, const struct mvi_space *space, bool padded,
                             uint64_t address, uint8_t *buffer, size_t size, uint64_t *done,
                             struct microvmi_translation *end)
{
    uint64_t key = mvi_translations_key(table, space);
    size_t at = 0, got;
    struct mvi_run run;
    int32_t code;

    *done = 0;
    for (; at < size; at += got, *done = at) {
        code = mvi_run_find(table, space, key, address, at, size - at, &run);
        code = mvi_run_read(table, padded, &run, code, buffer + at, &got);
        if (__builtin_expect(code == MICROVMI_OK, 1))
            continue;
        *done = at + got;
        if (code == MICROVMI_ERROR_NOT_MAPPED)
            mvi_run_tell(table, space, &run, address + at, got, end);
        return code;
    }
    return MICROVMI_OK;
}

/* Whether a read has several pages, and each page would take system calls. */
static bool mvi_is_gathered(const struct mvi_table *table, const struct mvi_space *space, uint64_t address, size_t size)
{
    size_t root = mvi_first(table, space->halves[0].root);

    return size > PAGE_SIZE - (address & (PAGE_SIZE - 1)) && root < table->count && table->regions[root].bytes == NULL;
}

/* By a function of a library each walk takes as many calls as it has levels: of so many pages Python, which reads the
 * entries of all of them together, needs fewer in all. What pages are kept of takes none. */
#define MVI_WALKED_ALONE ((size_t)16 << PAGE_SHIFT)

static bool mvi_is_walked_together(const struct mvi_table *table, size_t size)
{
    return table->by_frames && table->cache == NULL && size > MVI_WALKED_ALONE;
}

int32_t mvi_virtual_read(const struct mvi_table *table, const struct mvi_space *space, bool padded, uint64_t address,
                         uint8_t *buffer, size_t size, uint64_t *done, struct microvmi_translation *end)
{
    struct microvmi_read_request request = {.buffer = buffer, .size = size};

    *done = 0;
    if (mvi_is_walked_together(table, size))
        return MVI_ASK_PYTHON;
    if (!table->lasts && mvi_path_read(table, space, address, buffer, size)) {
        *done = size;
        return MICROVMI_OK;
    }
    request.virtual_address = address;
    if (!mvi_is_gathered(table, space, address, size) || !mvi_gather_read(table, space, padded, &request, 1))
        return mvi_read_runs(table, space, padded, address, buffer, size, done, end);
    *done = request.bytes_read;
    if (request.error == MICROVMI_ERROR_NOT_MAPPED)
        mvi_virtual_end(table, space, address, *done, end);
    return request.error;
}

/* One by one, for lack of memory. */
static void mvi_read_each(const struct mvi_table *table, const struct mvi_space *space,
                          struct microvmi_read_request *requests, size_t count)
{
    struct microvmi_translation end;
    size_t index;

    for (index = 0; index < count; index++)
        requests[index].error =
            mvi_read_runs(table, space, false, requests[index].virtual_address, requests[index].buffer,
                          requests[index].size, &requests[index].bytes_read, &end);
}

bool mvi_virtual_read_batch(const struct mvi_table *table, const struct mvi_space *space,
                            struct microvmi_read_request *requests, size_t count)
{
    bool all = true;
    size_t index;

    if (table->by_frames || !mvi_gather_read(table, space, false, requests, count))
        mvi_read_each(table, space, requests, count);
    for (index = 0; index < count; index++)
        all = all && requests[index].error == MICROVMI_OK;
    return all;
}

/* ------------------------------------------------------------------------------------------------ writing -------- */

struct mvi_piece {
    uint64_t physical;
    size_t size;
};

/* Where a write goes, found before anything is written. */
struct mvi_pieces {
    struct mvi_piece *list;
    size_t count, room;
    struct mvi_piece few[8];
};

static bool mvi_pieces_add(struct mvi_pieces *pieces, uint64_t physical, size_t size)
{
    struct mvi_piece *last = pieces->count > 0 ? &pieces->list[pieces->count - 1] : NULL, *more;

    if (last != NULL && last->physical + last->size == physical) {
        last->size += size;
        return true;
    }
    if (pieces->count == pieces->room) {
        more = malloc(2 * pieces->room * sizeof *more);
        if (more == NULL)
            return false;
        memcpy(more, pieces->list, pieces->count * sizeof *more);
        if (pieces->list != pieces->few)
            free(pieces->list);
        pieces->list = more;
        pieces->room *= 2;
    }
    pieces->list[pieces->count++] = (struct mvi_piece){physical, size};
    return true;
}

/* Find all pieces, and whether all can be written: as mvi_check_write(). */
static int32_t mvi_pieces_find(const struct mvi_table *table, const struct mvi_space *space, uint64_t address,
                               size_t size, bool checked, struct mvi_pieces *pieces, uint64_t *ready,
                               struct microvmi_translation *end)
{
    int32_t code, all = MICROVMI_OK;
    struct mvi_run run;
    uint64_t part = 0;
    size_t at = 0;

    for (; at < size; at += run.size, part = 0) {
        code = mvi_run_find(table, space, 0, address, at, size - at, &run);
        if (code == MICROVMI_OK)
            code = mvi_check_write(table, run.physical, run.size, checked, &part);
        if (code == MVI_ASK_PYTHON && !table->by_frames)
            all = code; /* go on: an error that is met behind it counts */
        else if (code == MICROVMI_OK && !mvi_pieces_add(pieces, run.physical, run.size))
            code = MICROVMI_ERROR_IO;
        if (code != all && code != MICROVMI_OK)
            break;
    }
    *ready = at + part;
    if (at < size && code == MICROVMI_ERROR_NOT_MAPPED)
        mvi_run_tell(table, space, &run, address + at, (size_t)part, end);
    return at < size ? code : all;
}

int32_t mvi_virtual_write(const struct mvi_table *table, const struct mvi_space *space, uint64_t address,
                          const uint8_t *data, size_t size, bool checked, uint64_t *done,
                          struct microvmi_translation *end)
{
    struct mvi_pieces pieces = {.room = sizeof pieces.few / sizeof *pieces.few};
    uint64_t put = 0;
    size_t index, at = 0;
    int32_t code;

    pieces.list = pieces.few;
    code = mvi_pieces_find(table, space, address, size, checked, &pieces, done, end);
    for (index = 0; code == MICROVMI_OK && index < pieces.count; index++, at += (size_t)put) {
        put = 0;
        code = mvi_table_write(table, pieces.list[index].physical, data + at, pieces.list[index].size, checked, &put);
        *done = at + put;
    }
    if (pieces.list != pieces.few)
        free(pieces.list);
    return code;
}

/* ------------------------------------------------------------------------------------------------ words ---------- */

static const char *mvi_failure_text(uint32_t failure)
{
    switch (failure) {
    case MICROVMI_TRANSLATION_NOT_PRESENT:
        return "is not present";
    case MICROVMI_TRANSLATION_RESERVED_BITS:
        return "has bits that are reserved";
    default:
        return "is not in the machine's memory";
    }
}

void mvi_describe_virtual(int32_t code, uint64_t address, size_t size, uint64_t done,
                          const struct microvmi_translation *end, char *text, size_t room)
{
    uint64_t at = address + done;

    if (code != MICROVMI_ERROR_NOT_MAPPED)
        snprintf(text, room, "%s at virtual address %#" PRIx64 " (%" PRIu64 " of %zu bytes before it)", mvi_cause(code),
                 at, done, size);
    else if (end->failure == MICROVMI_TRANSLATION_OK)
        snprintf(text, room,
                 "virtual address %#" PRIx64 " is mapped to physical address %#" PRIx64 ", which is no memory (%" PRIu64
                 " of %zu bytes before it)",
                 at, end->physical_address, done, size);
    else if (end->failure == MICROVMI_TRANSLATION_NOT_CANONICAL)
        snprintf(text, room,
                 "virtual address %#" PRIx64 " is none of that address space (%" PRIu64 " of %zu bytes before it)", at,
                 done, size);
    else
        snprintf(text, room,
                 "virtual address %#" PRIx64 " is not mapped: the entry of level %" PRIu32
                 " at physical address %#" PRIx64 ", %#" PRIx64 ", %s (%" PRIu64 " of %zu bytes before it)",
                 at, end->level, end->entry_address, end->entry, mvi_failure_text(end->failure), done, size);
}
