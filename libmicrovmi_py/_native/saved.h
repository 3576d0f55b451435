/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The records of pages in a saved machine of QEMU, of which a file has millions; read by cffi and by the C compiler alike.
 * Nothing of the file is trusted.
 */

/* What the lowest bits of an entry say that the others are: where the page lies as it is, or the byte that it consists of.
 * 0 is a page that is not there; other numbers are Python's, which reads what is rarer (savedram.py). */
#define MVI_SAVED_AS_IT_IS 1
#define MVI_SAVED_BYTE 2

/* How far the records were read, and what for. All offsets are of the file. */
struct mvi_saved_walk {
    uint64_t end;      /* of the file */
    uint64_t position; /* where the next record is */
    uint64_t word;    /* of a record that names its block, which is read: its page is at `position`; 0: there is none */
    uint64_t first;   /* the number of the first page of the block that is spoken of */
    uint64_t size;    /* of that block in bytes; 0 before the first */
    uint64_t records; /* pages that were read so far */
    uint64_t *entries; /* one for each page of all blocks */
    uint64_t room;     /* so many entries there are */
};

/*
 * Take over records of pages that lie as they are, or that consist of one byte, in the `size` bytes of the file from offset
 * `begin` on. Ends before the first record that is any other, that has its head or its byte elsewhere, that names its block,
 * or whose page has no entry, or is outside of the block or of the file.
 */
void mvi_saved_walk(struct mvi_saved_walk *walk, const uint8_t *bytes, uint64_t begin, uint64_t size);

/* The first from `first` to before `end` that is there, or is not there; `end` if none is. */
uint64_t mvi_saved_next(const uint64_t *entries, uint64_t first, uint64_t end, bool there);
