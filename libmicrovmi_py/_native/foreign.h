/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Memory that a hypervisor's library reads: its function is called from C, without Python and without Python's lock.
 * Read by cffi and by the C compiler alike. What does not succeed is Python's to tell: it asks again.
 */

/* What a read function takes after its handle, in which order, and what it returns. */
enum mvi_order {
    MVI_ADDRESS_BUFFER_SIZE, /* int f(handle, unsigned long long, void *, size_t): 0 is success, else errno has the reason */
    MVI_BUFFER_SIZE_ADDRESS, /* bool f(handle, uint8_t *, uint32_t, uint64_t): true is success */
};

/*
 * A way to a library's handle, shared by all of this process who call it, from C and from Python. Who calls joins first
 * and parts afterwards; once it is shut nobody joins any more, and when all have parted the handle can be closed.
 */
struct mvi_line;

/* `single`: the library takes one call at a time. `held` (or NULL) is not 0 while another process's call is under way. */
struct mvi_line *mvi_line_new(bool single, const uint8_t *held);
void mvi_line_free(struct mvi_line *line);

/* False, with nothing done: the line is shut. */
bool mvi_line_join(struct mvi_line *line);
void mvi_line_part(struct mvi_line *line);
void mvi_line_shut(struct mvi_line *line);
/* Wait until nobody is joined, `limit` ns at the most. False: somebody still is. */
bool mvi_line_wait(const struct mvi_line *line, int64_t limit);

/* The reason (an errno) for which nothing can be asked any more; 0: none. The first one counts. */
int32_t mvi_line_broken(const struct mvi_line *line);
void mvi_line_break(struct mvi_line *line, int32_t reason);
void mvi_line_mend(struct mvi_line *line);

/* Of a single line: take it, within `limit` ns, and give it back, in the same thread. */
bool mvi_line_lock(struct mvi_line *line, int64_t limit);
void mvi_line_unlock(struct mvi_line *line);
/* Whoever took it says until when (CLOCK_MONOTONIC, ns) the call may last, and then that it ended: false if it was given
 * up meanwhile, and what it returned is not to be believed. */
void mvi_line_begin(struct mvi_line *line, int64_t end);
bool mvi_line_end(struct mvi_line *line);
bool mvi_line_busy(const struct mvi_line *line);
/* Of who watches: give the call under way up if its time is over; the line is then broken (ETIMEDOUT). */
bool mvi_line_give_up(struct mvi_line *line);

/* A read function and how it is called. */
struct mvi_reads {
    uint64_t function;
    uint64_t handle;
    uint64_t end;        /* of what may exist: nothing is asked from this address on */
    uint64_t most;       /* bytes of a call */
    int64_t limit;       /* ns that a call may last, on a line that is watched */
    uint64_t lasting[4]; /* a bit for each errno after which nothing can be asked any more */
    uint32_t order;      /* enum mvi_order */
    bool crosses;        /* a call may cross frames */
};

/* The reads of one who opened a machine; the line has to outlive them. */
struct mvi_foreign;
struct mvi_foreign *mvi_foreign_new(const struct mvi_reads *reads, struct mvi_line *line);
void mvi_foreign_free(struct mvi_foreign *foreign);
/* From now on nothing is read any more. */
void mvi_foreign_close(struct mvi_foreign *foreign);

/* Read, and return how much, from the start; the buffer behind is as it was. */
size_t mvi_foreign_read(struct mvi_foreign *foreign, uint64_t address, uint8_t *buffer, size_t size);
/* The same for a table of memory by frames: out of its cache, and by its foreign reads, whose small ones fill the cache. */
size_t mvi_frames_read(const struct mvi_table *table, uint64_t address, uint8_t *buffer, size_t size);
