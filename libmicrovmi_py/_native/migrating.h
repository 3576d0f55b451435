/* SPDX-License-Identifier: Apache-2.0 */
/* What reads QEMU's migration stream, and what starts and ends that: migration.c and receiver.c. */
#ifndef MVI_MIGRATING_H
#define MVI_MIGRATING_H

#include "copying.h"

#include "migration.h"

#include <pthread.h>
#include <sys/types.h>

#define MVI_AHEAD ((size_t)256 << 10)
#define MVI_LONGEST_REST ((size_t)64 << 20)

struct mvi_migration {
    struct mvi_copy *copy;
    struct mvi_ram_block *blocks;
    struct mvi_ram_part *parts; /* of all blocks */
    size_t count;
    const struct mvi_ram_block *block; /* that of the last page; NULL before the first */
    uint64_t wanted;                   /* bytes of all parts */
    uint64_t longest;                  /* bytes that RAM may take in the stream */
    uint8_t *seen;                     /* a bit for each page of the copy */
    uint8_t *ahead;                    /* what was read of the file: MVI_AHEAD bytes at the most, */
    size_t start, end;                 /* and what of that is next */
    uint8_t *rest;
    size_t rest_size, rest_room;
    uint32_t section;
    int32_t fd;
    int32_t failed; /* the thread's, until it is over */
    pid_t owner;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t told;
    uint64_t begin,
        forgotten; /* places in the file: where reading began, and up to where it takes no memory any more */
    uint64_t received, copied; /* atomic; the first is where in the file reading goes on */
    bool over;                 /* with the lock */
    bool stopped, ended;       /* atomic */
    bool running;              /* atomic: there is a thread, which nobody waits for yet */
};

/* Read all of the stream; over is for the caller to set. */
void mvi_migration_read(struct mvi_migration *migration);

#endif
