/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Direct access to guest memory, without Python: read by cffi and by the C compiler alike. C callers and the Python
 * classes go through the same functions. Results are numbers of enum microvmi_error, 0 for success.
 */

/*
 * A mapping of another process, as the map of the guest's memory found it. What lies there now is the guest's as long as
 * the mapping is that one: an address that is unmapped may be anything's a moment later.
 */
struct mvi_mapping {
    uint64_t start, end; /* addresses in that process */
    uint64_t offset;     /* in the file, of `start` */
    uint64_t inode;      /* 0: no file's */
    uint64_t device;     /* major number << 32 | minor number */
    int32_t fd;          /* its /proc/PID/maps */
    bool writable;
    bool shared;
    bool pieces; /* these are several that continue each other, of which one is looked at */
    bool moved;  /* a look has found another one there; atomic */
};

/*
 * A piece of guest memory that can be reached directly: through a mapping of ours (`bytes`), in another process (`pid`),
 * or, with neither, in a file that is read and not mapped.
 */
struct mvi_region {
    uint64_t start;              /* guest-physical address */
    uint64_t size;               /* bytes, at least 1 */
    const uint8_t *bytes;        /* the mapping; NULL where there is none */
    uint8_t *writable;           /* the mapping to write through; NULL where there is none (yet) */
    uint64_t offset;             /* of the first byte, in `fd` */
    int32_t fd;                  /* the file (of a mapping -1: none, or no holes to find), or /proc/PID/mem */
    int32_t write_fd;            /* the same opened for writing where nothing is mapped, -1 where it is not (yet) */
    int32_t pid;                 /* of the other process, 0 for a mapping and for a file */
    int32_t pidfd;               /* of the process whose memory this is, mapped or not; -1 where there is none */
    int32_t pagemap_fd;          /* its /proc/PID/pagemap where what it never touched is zero, else -1 */
    uint8_t kind;                /* enum microvmi_memory_kind */
    bool image;                  /* of a mapped file: touch only chunks that are known to have no hole */
    bool arriving;               /* of a process: memory may still be on its way, and some reads would wait for it */
    bool unsteady;               /* may be taken out of the machine at any time: Python looks before a write */
    struct mvi_mapping *mapping; /* which has to be there still after a read; NULL where it cannot go */
};

struct mvi_table;
struct mvi_cache;
struct mvi_cursor;
struct mvi_foreign;

/*
 * An immutable table of regions. What its regions point at, and the cache (NULL: none), have to outlive it. `by_frames`
 * with no regions: the memory of a driver of frames, of which cached pages can be read, and what `foreign` (NULL: none)
 * reads, which has to outlive the table as well. NULL with errno EINVAL for regions that are not ascending and apart, are
 * empty, or reach beyond the address space; with ENOMEM without memory.
 */
struct mvi_table *mvi_table_new(const struct mvi_region *regions, size_t count, uint64_t max_address,
                                struct mvi_cache *cache, bool by_frames, struct mvi_foreign *foreign);
void mvi_table_free(struct mvi_table *table);

/* Before a table is used: its memory does not change by itself, so that translations may be remembered. */
void mvi_table_lasts(struct mvi_table *table);
/* Forget those of a table, in every thread; each write through the table does so. */
void mvi_table_flush(const struct mvi_table *table);

/*
 * Read at an address; *done is the length of the valid prefix. MICROVMI_ERROR_NOT_MAPPED where a plain read meets a
 * hole; a padded one fills holes with zeros. MVI_ASK_PYTHON (-1) for memory by frames of which not all was read: what
 * there is at address + *done has to be asked for by way of Python.
 */
int32_t mvi_table_read(const struct mvi_table *table, bool padded, uint64_t address, uint8_t *buffer, size_t size,
                       uint64_t *done);

/*
 * Write at an address, all or nothing. MVI_ASK_PYTHON (-1) where something has to be opened for writing first, or the
 * memory is unsteady and `checked` does not tell that it is still there; nothing was written then. *done tells how much
 * was written, and after a refusal how much in front could have been.
 */
int32_t mvi_table_write(const struct mvi_table *table, uint64_t address, const uint8_t *data, size_t size, bool checked,
                        uint64_t *done);

/*
 * Pages of a paused machine, up to `size` bytes of them (at least one). A get has to lie within one page; false: not
 * there. Then the epoch is taken, the whole page is read, and the keep hands out what was to be got; the page stays there
 * unless something was dropped since that epoch.
 */
struct mvi_cache *mvi_cache_new(size_t size);
void mvi_cache_free(struct mvi_cache *cache);
uint64_t mvi_cache_epoch(const struct mvi_cache *cache);
bool mvi_cache_get(struct mvi_cache *cache, uint64_t address, uint8_t *buffer, size_t size);
void mvi_cache_keep(struct mvi_cache *cache, uint64_t epoch, const uint8_t *page, uint64_t address, uint8_t *buffer,
                    size_t size);
void mvi_cache_drop(struct mvi_cache *cache, uint64_t address, size_t size);

/* Many reads in as few system calls as can be. True if all were whole. */
bool mvi_table_read_batch(const struct mvi_table *table, struct microvmi_read_request *requests, size_t count);

/* The first byte at or after `address` that may not be zero (hole = false), or that does not exist or is known to be
 * zero (hole = true); the maximum address if there is none. */
uint64_t mvi_table_find(const struct mvi_table *table, uint64_t address, bool hole);

/* How many bytes one look for differences compares before it ends early; what else it does counts as some. */
#define MVI_DIFF_LIMIT 268435456

/*
 * The frames in which the memory of two tables differs, as runs of the same kind in ascending order: those that have not the
 * same bytes, and those that are not there in the same places. The kind is the newer one's where it has the bytes that differ.
 */
struct mvi_diff {
    const struct mvi_table *older;
    const struct mvi_table *newer;
    uint64_t next; /* in: an address in the frame to begin with; out: the frame to go on with, 0: that was all */
    uint64_t last; /* the last address that is looked at */
    struct microvmi_memory_range *ranges;
    size_t capacity;   /* of `ranges`, at least 1 */
    size_t count;      /* out: how many were filled, after an error as well */
    bool newer_failed; /* out: which of the two could not be read, after an error; `next` is then its frame */
};
int32_t mvi_diff_some(struct mvi_diff *diff);
/* As mvi_describe(), of an error of mvi_diff_some(). */
void mvi_diff_describe(const struct mvi_diff *diff, int32_t code, char *text, size_t room);

/* What a result means, as one line: `room` bytes at `text` take it, MVI_DESCRIPTION are enough. */
#define MVI_DESCRIPTION 288
void mvi_describe(int32_t code, uint64_t address, size_t size, uint64_t done, char *text, size_t room);

/* A stream's cursor: 0 to the maximum address, guarded by a lock. */
struct mvi_cursor *mvi_cursor_new(void);
void mvi_cursor_free(struct mvi_cursor *cursor);
void mvi_cursor_lock(struct mvi_cursor *cursor);
void mvi_cursor_unlock(struct mvi_cursor *cursor);
uint64_t mvi_cursor_get(const struct mvi_cursor *cursor);
void mvi_cursor_set(struct mvi_cursor *cursor, uint64_t position);

/* Move a cursor, as microvmi_seek(). *position is where it is then. MICROVMI_ERROR_INVALID_ARGUMENT: another whence. */
int32_t mvi_stream_seek(struct mvi_cursor *cursor, const struct mvi_table *table, int64_t offset, int32_t whence,
                        uint64_t *position);

/* What a stream of a Python program reads with, handed over at once. */
struct mvi_stream {
    struct mvi_cursor *cursor;
    const struct mvi_table *table;
    bool padded;
};

/*
 * mvi_stream_read() for Python: the count, or the code as a negative number; the position and the count of a failure
 * are then told by mvi_stream_failure() in the same thread.
 */
int64_t mvi_stream_take(const struct mvi_stream *stream, uint8_t *buffer, size_t size);
void mvi_stream_failure(uint64_t *position, uint64_t *done);

/* mvi_stream_seek() for Python: where the cursor is then; any other whence moves nothing. */
uint64_t mvi_stream_move(const struct mvi_stream *stream, int64_t offset, int32_t whence);

/* Read at a cursor, up to the maximum address, and move it by *done; *position is where it was. */
int32_t mvi_stream_read(struct mvi_cursor *cursor, const struct mvi_table *table, bool padded, uint8_t *buffer,
                        size_t size, uint64_t *position, uint64_t *done);
