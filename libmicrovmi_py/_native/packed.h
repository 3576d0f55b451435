/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Pages of a dump that are packed one by one: found, read and unpacked without Python and its lock, by functions of the
 * system's libraries. Read by cffi and by the C compiler alike. What is damaged, or not there, is Python's to tell.
 */

/* How the function of a codec is called, and what it returns. */
enum mvi_codec_call {
    MVI_CODEC_ZLIB,   /* int f(out, unsigned long *size, in, unsigned long size): 0 */
    MVI_CODEC_LZO,    /* int f(in, size_t size, out, size_t *size, NULL): 0 */
    MVI_CODEC_SNAPPY, /* int f(in, size_t size, out, size_t *size): 0 */
    MVI_CODEC_ZSTD,   /* size_t f(context, out, size_t size, in, size_t size): the size */
};

/* A codec, and the flag of the pages that it unpacks; `make` and `end` are those of a context of zstd, else 0. */
struct mvi_codec {
    uint64_t function;
    uint64_t make;
    uint64_t end;
    uint32_t flag;
    uint32_t call; /* enum mvi_codec_call */
};

/* The bytes of an image from `start` to before `end` are those of the open file `fd` from `offset` on. */
struct mvi_image_part {
    uint64_t start;
    uint64_t end;
    uint64_t offset;
    uint64_t fd;
};

/*
 * Which pages there are, as runs, and where. With a `table` in the image page number `index` of them has its descriptor
 * there, as kdump files have it: 24 bytes, offset, size and flag. With `entries` it has a word in that array, three bits of
 * which say what the others are (enum mvi_entry), and only zlib is used. All arrays are in ascending order, and outlive the
 * pages.
 */
struct mvi_packing {
    const uint64_t *starts;  /* the first page of a run, by its number in memory */
    const uint64_t *ends;    /* one past its last page */
    const uint64_t *indices; /* what its first page is called */
    size_t runs;
    const struct mvi_image_part *parts;
    size_t part_count;
    const struct mvi_codec *codecs; /* copied */
    size_t codec_count;             /* MVI_MOST_CODECS at the most */
    const uint64_t *entries;        /* NULL with a table */
    size_t entry_count;
    uint64_t table;
    uint32_t page_shift; /* 12 to 16 */
};
#define MVI_MOST_CODECS 4

/* What an entry's other bits are: where the page lies as it is, the byte that all of it is, where 4 bytes with the size (the
 * greatest first) and what zlib unpacks lie. One of another kind is Python's. */
enum mvi_entry {
    MVI_ENTRY_AS_IT_IS = 1,
    MVI_ENTRY_BYTE = 2,
    MVI_ENTRY_PACKED = 3,
};

/* 24 bytes of a kdump file, little-endian. */
struct mvi_descriptor {
    uint64_t offset;
    uint32_t size;
    uint32_t flag;
    uint64_t unused;
};

struct mvi_packed;

/* NULL without memory, or for a packing that cannot be. */
struct mvi_packed *mvi_packed_new(const struct mvi_packing *packing);
void mvi_packed_free(struct mvi_packed *packed);

/* Read from an address on; how much was read, from the start: less before a page that is not there or cannot be unpacked.
 * The buffer behind is as it was. Several threads may read at once. */
size_t mvi_packed_read(struct mvi_packed *packed, uint64_t address, uint8_t *buffer, size_t size);

/* The same for a table of memory by frames (MVI_ADDRESS_BUFFER_SIZE): 0 if all was read. Nothing is unpacked of a range of
 * which a page is not there. */
int mvi_packed_fill(void *packed, unsigned long long address, void *buffer, size_t size);

/* The runs of ones that were found in a bitmap: bits, and how many ones are before each run. */
struct mvi_bit_runs {
    uint64_t *starts;
    uint64_t *ends;
    uint64_t *before;
    size_t count;
    size_t room; /* of the arrays */
    uint64_t ones;
};

/*
 * Add the runs in a piece of a bitmap, of which bit `first` is the first of `bytes` and `end` is one past the last of all. One
 * that goes on where the last one ended makes that longer. Returns how many bytes were looked at: fewer than `size` if there
 * is no room for more runs.
 */
size_t mvi_bitmap_runs(const uint8_t *bytes, size_t size, uint64_t first, uint64_t end, struct mvi_bit_runs *found);

/* The first of `count` descriptors of a kdump file whose page is longer than a page or not all in the image; `count` if
 * none is. All bits that flags before it have are added to *flags. */
size_t mvi_descriptors_look(const uint8_t *bytes, size_t count, size_t page_size, uint64_t image_size, uint32_t *flags);
