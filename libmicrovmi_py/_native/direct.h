/* SPDX-License-Identifier: Apache-2.0 */
/* Direct access to memory; needs no Python, so that it can be built into the library and into a Python module. */
#ifndef MVI_DIRECT_H
#define MVI_DIRECT_H

#pragma GCC visibility push(default)
#include "libmicrovmi.h"
#pragma GCC visibility pop

#include <stdlib.h>
#include <string.h>

#include "hot.h"

#define MVI_ASK_PYTHON (-1)

/* A look at something outside: at what, and when (ns). */
struct mvi_look {
    uint64_t at_what; /* 0: none yet */
    int64_t when;
};

/* All that a thread has of its own, in one place, which the fast way reaches by one look-up. */
struct mvi_thread {
    struct mvi_reader *reader; /* readers.h; NULL before the first direct access */
    struct mvi_reader *fast;   /* the same where a reader needs no fence, and not in a forked child */
    size_t last_hit;           /* hot.c: the region found last; a guess, checked before it is used */
    int32_t code;              /* error.c: the error of the last call, */
    char *text;                /* and its text: heap, freed when the thread ends; NULL stands for "" */
    uintptr_t stack;           /* calls.c: the thread's stack, from here */
    uintptr_t stack_end;       /* to here; 0: not known yet */
    struct mvi_look process;   /* look.h: the last process that was found running, */
    struct mvi_look file;      /* and the last region whose file was found whole */
    bool interrupted;          /* calls.c: the host's Python is owed a KeyboardInterrupt */
};
static __thread struct mvi_thread mvi_thread;

/* Where words of 8 bytes can be read in a mapping: their addresses from `start` on, `span` of them, 0 elsewhere. */
struct mvi_word {
    uint64_t start;
    uint64_t span;
    const uint8_t *bytes;
    uint64_t unused; /* 32 bytes: the index is a shift */
};

/* What is known of a file's holes is known by chunks of this size (as a power of two). */
#define MVI_CHUNK_SHIFT 16

/*
 * For each region that may have holes a byte a chunk: MVI_DENSE once the chunk is known to have none, or not to be worth
 * asking about. It stays so, as what is read is not a hole any more; a guest that gives memory back only makes it less
 * useful. MVI_HOLED: small reads of an image need not ask again.
 */
enum mvi_chunk { MVI_UNKNOWN, MVI_DENSE, MVI_HOLED };

struct mvi_table {
    uint64_t max_address;
    size_t count;
    bool by_frames;          /* the memory of a driver of frames: only what is cached can be read here */
    struct mvi_cache *cache; /* NULL unless the machine is paused; the maker's, not the table's */
    const struct mvi_region *watched; /* one of another process, which has to run while pages of it are kept; or NULL */
    struct mvi_word *words;  /* beside `regions`, what the fast way needs of them */
    uint8_t **dense;
    uint32_t *buckets;       /* an index of `regions` by address: the first that ends behind the bucket's start */
    unsigned bucket_shift;
    uint64_t last;           /* the last byte of all regions */
    struct mvi_region regions[];
};

/* Asking a file for its holes costs as much as copying some pages: only a large read asks. */
#define MVI_SPARSE_FROM (64u << 10)

static inline bool mvi_is_process(const struct mvi_region *region)
{
    return region->bytes == NULL && region->pid != 0;
}

static inline bool mvi_is_dense(const uint8_t *dense, uint64_t offset)
{
    return __atomic_load_n(&dense[offset >> MVI_CHUNK_SHIFT], __ATOMIC_RELAXED) == MVI_DENSE;
}

/* Whether all chunks of a small read, which has two at the most, may be touched. */
static inline bool mvi_may_touch(const uint8_t *dense, uint64_t offset, size_t size)
{
    return mvi_is_dense(dense, offset) && mvi_is_dense(dense, offset + size - 1);
}

static inline size_t mvi_smaller(uint64_t first, uint64_t second)
{
    return (size_t)(first < second ? first : second);
}

#endif
