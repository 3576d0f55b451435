/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pages of RAM in QEMU's migration stream; see migration.h.
 *
 * What QEMU sends of RAM are sections: a byte for the kind, the section's number, and then pages, each behind a word of its
 * address and flags, until a word that says that the section is over. All numbers are big-endian. Behind the last section of
 * RAM come those of the devices, which are kept as they are.
 */
#include "migrating.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* The kinds of sections. */
#define MVI_STREAM_END 0x00
#define MVI_STREAM_PART 0x02
#define MVI_STREAM_LAST 0x03
#define MVI_STREAM_FULL 0x04
#define MVI_STREAM_FOOTER 0x7e

/* The flags of a page. */
#define MVI_PAGE_ZERO 0x02
#define MVI_PAGE_BYTES 0x08
#define MVI_PAGES_END 0x10
#define MVI_PAGE_SAME_BLOCK 0x20

#define MVI_LOOK_NS 1000000
#define MVI_FORGET_AT_ONCE (UINT64_C(4) << 20)

/* ------------------------------------------------------------------------------------------------ the file ------- */

static bool mvi_fail(struct mvi_migration *migration, int32_t failed)
{
    if (migration->failed == 0)
        migration->failed = failed;
    return false;
}

/* What was read takes no memory any more. */
static void mvi_forget_received(struct mvi_migration *migration)
{
    uint64_t until = migration->received & ~(PAGE_SIZE - 1);

    if (until - migration->forgotten < MVI_FORGET_AT_ONCE)
        return;
    (void)fallocate(migration->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)migration->forgotten,
                    (off_t)(until - migration->forgotten));
    migration->forgotten = until;
}

/* Read what there is, up to `room` bytes, or wait for some. 0: the stream is over; -1: it failed, or was stopped. */
static ssize_t mvi_receive(struct mvi_migration *migration, uint8_t *bytes, size_t room)
{
    struct timespec moment = {.tv_nsec = MVI_LOOK_NS};
    ssize_t count;
    bool ended;

    for (;;) {
        if (__atomic_load_n(&migration->stopped, __ATOMIC_RELAXED)) {
            (void)mvi_fail(migration, MVI_MIGRATION_STOPPED);
            return -1;
        }
        ended = __atomic_load_n(&migration->ended, __ATOMIC_ACQUIRE); /* before the look: all of it is there then */
        count = pread(migration->fd, bytes, room, (off_t)migration->received);
        if (count > 0 || (count == 0 && ended))
            break;
        if (count < 0 && errno != EINTR) {
            (void)mvi_fail(migration, MVI_MIGRATION_FILE);
            return -1;
        }
        (void)nanosleep(&moment, NULL);
    }
    __atomic_add_fetch(&migration->received, (uint64_t)count, __ATOMIC_RELAXED);
    mvi_forget_received(migration);
    return count;
}

/* The next bytes of the stream, in one piece; NULL: it has not so many. */
static const uint8_t *mvi_next(struct mvi_migration *migration, size_t size)
{
    ssize_t count;

    while (migration->end - migration->start < size) {
        if (MVI_AHEAD - migration->start < size) {
            memmove(migration->ahead, migration->ahead + migration->start, migration->end - migration->start);
            migration->end -= migration->start;
            migration->start = 0;
        }
        count = mvi_receive(migration, migration->ahead + migration->end, MVI_AHEAD - migration->end);
        if (count == 0)
            (void)mvi_fail(migration, MVI_MIGRATION_ENDED);
        if (count <= 0)
            return NULL;
        migration->end += (size_t)count;
    }
    migration->start += size;
    return migration->ahead + migration->start - size;
}

static bool mvi_next_number(struct mvi_migration *migration, size_t size, uint64_t *number)
{
    const uint8_t *bytes = mvi_next(migration, size);
    size_t index;

    *number = 0;
    for (index = 0; bytes != NULL && index < size; index++)
        *number = *number << 8 | bytes[index];
    return bytes != NULL;
}

/* ------------------------------------------------------------------------------------------------ pages ---------- */

/* The block that is named next. */
static bool mvi_next_block(struct mvi_migration *migration)
{
    const uint8_t *name;
    uint64_t length;
    size_t index;

    if (!mvi_next_number(migration, 1, &length) || (name = mvi_next(migration, (size_t)length)) == NULL)
        return false;
    for (index = 0; index < migration->count; index++) {
        migration->block = &migration->blocks[index];
        if (strlen(migration->block->name) == length && memcmp(migration->block->name, name, length) == 0)
            return true;
    }
    return mvi_fail(migration, MVI_MIGRATION_BLOCK);
}

/* Where a page of the block belongs; false: nowhere. */
static bool mvi_place_of(const struct mvi_migration *migration, uint64_t offset, uint64_t *place)
{
    const struct mvi_ram_part *parts = migration->parts + migration->block->first;
    size_t low = 0, high = migration->block->count, middle;

    while (high - low > 1) {
        middle = low + (high - low) / 2;
        if (parts[middle].offset <= offset)
            low = middle;
        else
            high = middle;
    }
    if (low == high || offset < parts[low].offset || offset - parts[low].offset >= parts[low].size)
        return false;
    *place = parts[low].place + (offset - parts[low].offset);
    return true;
}

/* Put a page, or zeros (NULL), into the copy, which was empty. */
static bool mvi_put_page(struct mvi_migration *migration, uint64_t offset, const uint8_t *bytes)
{
    uint64_t place, page;
    uint8_t bit;
    int32_t failed;

    if (!mvi_place_of(migration, offset, &place))
        return true;
    page = place >> PAGE_SHIFT;
    bit = (uint8_t)(1u << (page % 8));
    if ((migration->seen[page / 8] & bit) != 0)
        return mvi_fail(migration, MVI_MIGRATION_TWICE);
    migration->seen[page / 8] |= bit;
    failed = bytes != NULL ? mvi_copy_store(migration->copy, place, bytes, PAGE_SIZE) : 0;
    __atomic_add_fetch(&migration->copied, PAGE_SIZE, __ATOMIC_RELAXED);
    return failed == 0 || mvi_fail(migration, failed);
}

/* One page, behind its word. */
static bool mvi_next_page(struct mvi_migration *migration, uint64_t offset, unsigned flags)
{
    const uint8_t *bytes;
    uint64_t value;

    if ((flags & MVI_PAGE_SAME_BLOCK) == 0 && !mvi_next_block(migration))
        return false;
    if (migration->block == NULL)
        return mvi_fail(migration, MVI_MIGRATION_BLOCK);
    if (offset >= migration->block->size || migration->block->size - offset < PAGE_SIZE)
        return mvi_fail(migration, MVI_MIGRATION_PAGE);
    switch (flags & ~(unsigned)MVI_PAGE_SAME_BLOCK) {
    case MVI_PAGE_ZERO:
        if (!mvi_next_number(migration, 1, &value))
            return false;
        return value == 0 ? mvi_put_page(migration, offset, NULL) : mvi_fail(migration, MVI_MIGRATION_FORM);
    case MVI_PAGE_BYTES:
        bytes = mvi_next(migration, PAGE_SIZE);
        return bytes != NULL && mvi_put_page(migration, offset, bytes);
    default:
        return mvi_fail(migration, MVI_MIGRATION_FORM);
    }
}

/* The pages of one section. */
static bool mvi_next_pages(struct mvi_migration *migration)
{
    uint64_t word;

    while (mvi_next_number(migration, sizeof word, &word)) {
        if (migration->received - migration->begin > migration->longest)
            return mvi_fail(migration, MVI_MIGRATION_LONG);
        if (word == MVI_PAGES_END)
            return true;
        if (!mvi_next_page(migration, word & ~(PAGE_SIZE - 1), (unsigned)(word & (PAGE_SIZE - 1))))
            return false;
    }
    return false;
}

/* ------------------------------------------------------------------------------------------------ sections ------- */

/* Behind a section of RAM: its footer, where the machine has footers, and the head of the next one, if that is RAM's. */
static bool mvi_next_section(struct mvi_migration *migration, bool *more)
{
    uint64_t kind, number;

    if (!mvi_next_number(migration, 1, &kind))
        return false;
    if (kind == MVI_STREAM_FOOTER) {
        if (!mvi_next_number(migration, 4, &number) || !mvi_next_number(migration, 1, &kind))
            return false;
    }
    *more = kind == MVI_STREAM_PART || kind == MVI_STREAM_LAST;
    if (*more)
        return mvi_next_number(migration, 4, &number) &&
               (number == migration->section || mvi_fail(migration, MVI_MIGRATION_SECTION));
    migration->start--; /* what comes next is the devices' */
    return kind == MVI_STREAM_FULL || kind == MVI_STREAM_END || mvi_fail(migration, MVI_MIGRATION_SECTION);
}

/* Make room for more of what is behind RAM. */
static bool mvi_grow_rest(struct mvi_migration *migration)
{
    size_t room = migration->rest_room > 0 ? migration->rest_room * 2 : MVI_AHEAD;
    uint8_t *rest;

    if (room > MVI_LONGEST_REST)
        return mvi_fail(migration, MVI_MIGRATION_LONG);
    rest = realloc(migration->rest, room);
    if (rest == NULL)
        return mvi_fail(migration, ENOMEM);
    migration->rest = rest;
    migration->rest_room = room;
    return true;
}

/* Keep all that is behind RAM. */
static void mvi_keep_rest(struct mvi_migration *migration)
{
    ssize_t count = 1;

    if (!mvi_grow_rest(migration))
        return;
    migration->rest_size = migration->end - migration->start;
    memcpy(migration->rest, migration->ahead + migration->start, migration->rest_size);
    while (count > 0) {
        if (migration->rest_size == migration->rest_room && !mvi_grow_rest(migration))
            return;
        count =
            mvi_receive(migration, migration->rest + migration->rest_size, migration->rest_room - migration->rest_size);
        if (count > 0)
            migration->rest_size += (size_t)count;
    }
}

void mvi_migration_read(struct mvi_migration *migration)
{
    bool more = true;

    while (more && mvi_next_pages(migration) && mvi_next_section(migration, &more))
        ;
    if (migration->failed == 0 && migration->copied < migration->wanted)
        (void)mvi_fail(migration, MVI_MIGRATION_MISSING);
    if (migration->failed == 0)
        mvi_keep_rest(migration);
}
