/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The memory that a snapshot is copied into: a memfd, of which only what holds something takes memory. Read by cffi and
 * by the C compiler alike. Results are 0 or a number of errno; EDQUOT: the copy may not hold so much.
 */

/* What is known of a chunk of 64 KiB: a bit for each of its pages that takes memory. */
typedef uint16_t mvi_pages;

struct mvi_copy {
    uint8_t *bytes;   /* the mapping, to be written where room was made */
    uint64_t size;    /* whole chunks */
    uint64_t limit;   /* bytes that its pages may take */
    uint64_t taken;   /* bytes that they take; atomic */
    mvi_pages *pages; /* a chunk each; two threads are never at work on the same */
    int32_t fd;       /* the maker's, who closes it when the copy was freed */
};

/* Make a memfd `size` bytes long, whole chunks, and map it. NULL with errno. */
struct mvi_copy *mvi_copy_new(int32_t fd, uint64_t size, uint64_t limit);
void mvi_copy_free(struct mvi_copy *copy);

/* See to it that all pages of a range are there, so that writing them cannot fail. Those that are new are zeros. */
int32_t mvi_copy_room(struct mvi_copy *copy, uint64_t offset, uint64_t size);

/* Put bytes where they belong; a page of zeros that takes no memory still takes none. */
int32_t mvi_copy_store(struct mvi_copy *copy, uint64_t offset, const uint8_t *bytes, size_t size);

/* A range is zeros from now on; takes no memory, and gives none back. */
void mvi_copy_clear(struct mvi_copy *copy, uint64_t offset, uint64_t size);

/* Give back the memory of all pages that are zeros, from a chunk on, some at a time. True: that were all. */
bool mvi_copy_trim(struct mvi_copy *copy, uint64_t *chunk);
