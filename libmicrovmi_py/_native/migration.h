/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The pages of RAM in QEMU's migration stream, which QEMU writes into a file in memory, read into the copy of a snapshot by
 * a thread of their own. Read by cffi and by the C compiler alike. Nothing of the stream is trusted.
 */

/* A piece of a block of RAM, and where in the copy it belongs. */
struct mvi_ram_part {
    uint64_t offset; /* in the block, a multiple of 4096, as the others are */
    uint64_t size;
    uint64_t place; /* in the copy */
};

/* A block of RAM. Pages of it that are in none of its parts are not wanted. */
struct mvi_ram_block {
    char name[256]; /* as the stream has it */
    uint64_t size;
    size_t first, count; /* its parts among those of all blocks, ascending by offset and apart */
};

/* What may be wrong with a stream. What is wrong with the copy is told by numbers of errno, which are positive. */
enum mvi_migration_failure {
    MVI_MIGRATION_ENDED = -1,   /* it ends in the middle */
    MVI_MIGRATION_SECTION = -2, /* a section that is not known here */
    MVI_MIGRATION_BLOCK = -3,   /* a block that was not announced */
    MVI_MIGRATION_PAGE = -4,    /* a page outside of its block */
    MVI_MIGRATION_FORM = -5,    /* a page in a form that is not known here */
    MVI_MIGRATION_TWICE = -6,   /* a page that came before: one of them is of a later moment */
    MVI_MIGRATION_MISSING = -7, /* a page of a part has not come */
    MVI_MIGRATION_LONG = -8,    /* devices' state of more bytes than can be */
    MVI_MIGRATION_FILE = -9,    /* the file cannot be read */
    MVI_MIGRATION_STOPPED = -10 /* mvi_migration_stop() */
};

/* How far it is. */
struct mvi_migration_progress {
    uint64_t received; /* bytes of the stream */
    uint64_t copied;   /* bytes of the parts that have come */
    bool over;         /* nothing is read any more */
    int32_t failed;    /* 0, if it is over: all pages have come, and mvi_migration_rest() has what was behind them */
};

struct mvi_migration;

/*
 * Reading `fd` from a place on within the first section of RAM, which has the number `section`, behind the list of blocks.
 * What was read takes no memory any more in the file. What is pointed at is copied, but for `copy`, which is empty and which
 * nobody else may write to: it has to be held, as `fd`, until this is freed. NULL with errno.
 */
struct mvi_migration *mvi_migration_new(int32_t fd, uint64_t place, uint32_t section,
                                        const struct mvi_ram_block *blocks, size_t count,
                                        const struct mvi_ram_part *parts, size_t part_count, struct mvi_copy *copy);

/* Begin, once: who does has written down before what is to be stopped. 0, or a number of errno. */
int32_t mvi_migration_start(struct mvi_migration *migration);

/* Wait until it is over, or for so long, and tell how far it is. */
void mvi_migration_wait(struct mvi_migration *migration, uint32_t milliseconds,
                        struct mvi_migration_progress *progress);

/* All of the stream is in the file: it is over when that was read. */
void mvi_migration_end(struct mvi_migration *migration);

/* What came behind RAM: the devices' state, from the first byte of its first section to the end of the stream. */
const uint8_t *mvi_migration_rest(const struct mvi_migration *migration, size_t *size);

/* No byte is read any more when this returns. */
void mvi_migration_stop(struct mvi_migration *migration);
void mvi_migration_free(struct mvi_migration *migration);
