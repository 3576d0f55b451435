/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that reads QEMU's migration stream; see migration.h. */
#include "migrating.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MVI_READER_STACK ((size_t)256 << 10)

/* Whether the parts of a block are what they are said to be; they are added to what is wanted. */
static bool mvi_count_parts(struct mvi_migration *migration, const struct mvi_ram_block *block)
{
    const struct mvi_ram_part *part = migration->parts + block->first;
    uint64_t before = 0, size = migration->copy->size;
    size_t index;

    for (index = 0; index < block->count; index++, part++) {
        if (part->offset < before || part->offset > block->size || part->size > block->size - part->offset ||
            part->place > size || part->size > size - part->place ||
            ((part->offset | part->size | part->place) & (PAGE_SIZE - 1)) != 0)
            return false;
        before = part->offset + part->size;
        migration->wanted += part->size;
    }
    return true;
}

/* What the blocks and their parts tell. */
static bool mvi_count_blocks(struct mvi_migration *migration, size_t part_count)
{
    uint64_t most = UINT64_MAX / 4;
    size_t index;

    migration->longest = MVI_LONGEST_REST;
    for (index = 0; index < migration->count; index++) {
        struct mvi_ram_block *block = &migration->blocks[index];

        block->name[sizeof block->name - 1] = '\0';
        if (block->first > part_count || block->count > part_count - block->first || block->size > most ||
            !mvi_count_parts(migration, block))
            return false;
        migration->longest += 2 * block->size; /* a page takes 4104 bytes, and is not sent twice */
        most -= block->size;
    }
    return true;
}

/* A copy of an array that is never NULL but for want of memory. */
static void *mvi_copy_of(const void *items, size_t count, size_t size)
{
    void *made = calloc(count + 1, size);

    if (made != NULL && count > 0)
        memcpy(made, items, count * size);
    return made;
}

static void *mvi_reader(void *argument)
{
    struct mvi_migration *migration = argument;

    mvi_migration_read(migration);
    pthread_mutex_lock(&migration->lock);
    migration->over = true;
    pthread_cond_broadcast(&migration->told);
    pthread_mutex_unlock(&migration->lock);
    return NULL;
}

int32_t mvi_migration_start(struct mvi_migration *migration)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    int failed = pthread_attr_init(&attributes);

    if (failed != 0)
        return failed;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_attr_setstacksize(&attributes, MVI_READER_STACK);
    if (failed == 0)
        failed = pthread_create(&migration->thread, &attributes, mvi_reader, migration);
    migration->running = failed == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return failed;
}

static void mvi_migration_drop(struct mvi_migration *migration)
{
    free(migration->blocks);
    free(migration->parts);
    free(migration->ahead);
    free(migration->seen);
    free(migration->rest);
    free(migration);
}

static int mvi_migration_prepare(struct mvi_migration *migration, size_t part_count)
{
    pthread_condattr_t attributes;

    migration->ahead = malloc(MVI_AHEAD);
    migration->seen = calloc((migration->copy->size >> PAGE_SHIFT) / 8 + 1, 1);
    if (migration->blocks == NULL || migration->parts == NULL || migration->ahead == NULL || migration->seen == NULL)
        return ENOMEM;
    if (!mvi_count_blocks(migration, part_count))
        return EINVAL;
    pthread_mutex_init(&migration->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&migration->told, &attributes);
    pthread_condattr_destroy(&attributes);
    return 0;
}

struct mvi_migration *mvi_migration_new(int32_t fd, uint64_t place, uint32_t section,
                                        const struct mvi_ram_block *blocks, size_t count,
                                        const struct mvi_ram_part *parts, size_t part_count, struct mvi_copy *copy)
{
    struct mvi_migration *migration = calloc(1, sizeof *migration);
    int failed;

    if (migration == NULL)
        return NULL;
    *migration = (struct mvi_migration){.copy = copy, .fd = fd, .section = section, .owner = getpid(), .count = count};
    migration->begin = migration->received = place;
    migration->blocks = mvi_copy_of(blocks, count, sizeof *blocks);
    migration->parts = mvi_copy_of(parts, part_count, sizeof *parts);
    failed = mvi_migration_prepare(migration, part_count);
    if (failed == 0)
        return migration;
    mvi_migration_drop(migration);
    errno = failed;
    return NULL;
}

void mvi_migration_wait(struct mvi_migration *migration, uint32_t milliseconds, struct mvi_migration_progress *progress)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += milliseconds / 1000;
    until.tv_nsec += (long)(milliseconds % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_mutex_lock(&migration->lock);
    while (!migration->over && pthread_cond_timedwait(&migration->told, &migration->lock, &until) == 0)
        ;
    progress->over = migration->over;
    pthread_mutex_unlock(&migration->lock);
    progress->failed = progress->over ? migration->failed : 0;
    progress->received = __atomic_load_n(&migration->received, __ATOMIC_RELAXED);
    progress->copied = __atomic_load_n(&migration->copied, __ATOMIC_RELAXED);
}

const uint8_t *mvi_migration_rest(const struct mvi_migration *migration, size_t *size)
{
    *size = migration->rest_size;
    return migration->rest;
}

void mvi_migration_end(struct mvi_migration *migration)
{
    __atomic_store_n(&migration->ended, true, __ATOMIC_RELEASE);
}

void mvi_migration_stop(struct mvi_migration *migration)
{
    __atomic_store_n(&migration->stopped, true, __ATOMIC_RELAXED);
    if (__atomic_exchange_n(&migration->running, false, __ATOMIC_ACQ_REL) &&
        migration->owner == getpid()) /* a child of fork() has no such thread */
        pthread_join(migration->thread, NULL);
}

void mvi_migration_free(struct mvi_migration *migration)
{
    if (migration == NULL)
        return;
    mvi_migration_stop(migration);
    mvi_migration_drop(migration);
}
