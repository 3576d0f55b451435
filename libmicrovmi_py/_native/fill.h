/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Copying memory that is reached directly into the copy of a snapshot, by several threads. Read by cffi and by the C
 * compiler alike. The first time it makes room for what holds something; the second time most of it has its place, and is
 * copied as fast as can be.
 */

/* A range of guest-physical memory, and where it begins in the copy; the two are alike in their place in a chunk. */
struct mvi_fill_part {
    uint64_t address;
    uint64_t size;
    uint64_t offset;
};

struct mvi_fill;

/*
 * Copying all parts, which ascend in both and are apart. It has to be ended, and what is handed over has to last until then:
 * who begins it writes it down before there are threads. NULL: no memory.
 */
struct mvi_fill *mvi_fill_new(const struct mvi_table *table, struct mvi_copy *copy, const struct mvi_fill_part *parts,
                              size_t count);

/* Threads begin, all but one of `threads` (at least 1), as many as the system allows; the caller is the other. Once. */
void mvi_fill_start(struct mvi_fill *fill, uint32_t threads);

/* Copy with the others for some milliseconds; *done is how many bytes were looked at. True: there is nothing left to do. */
bool mvi_fill_some(struct mvi_fill *fill, uint32_t milliseconds, uint64_t *done);

/*
 * End it, finished or not, with all its threads. MICROVMI_OK, or the code of a read that failed at *address; *failed is then
 * 0, or if it was no read what a function of copy.h returned.
 */
int32_t mvi_fill_end(struct mvi_fill *fill, uint64_t *address, int32_t *failed);
