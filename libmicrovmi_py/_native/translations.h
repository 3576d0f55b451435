/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a thread remembers of address spaces: how they are made ready for walks, and where pages of them are.
 *
 * A translation is good for a table, an address space and a number of flushes. These three have a key: a small number
 * that stands beside the page in what is remembered, so that one comparison tells all. Each thread has its own, so that
 * they take no locks. The number of flushes is taken before a walk, so that what a write changes meanwhile is not kept.
 */
#ifndef MVI_TRANSLATIONS_H
#define MVI_TRANSLATIONS_H

#include "cache.h"
#include "paging.h"

#include <string.h>
#include <sys/uio.h>

#define MVI_KEPT_TRANSLATIONS 4096
#define MVI_KEYS 4096 /* what fits below the number of a page */
#define MVI_PATHS 256
#define MVI_VIEWS 8

/* A page of 4 KiB, or one of those in a larger page. */
struct mvi_kept_translation {
    uint64_t tag;  /* the virtual page, and the key; 0: none */
    uint64_t page; /* physical */
};

/* An address space, and what translations of it are good for. */
struct mvi_view {
    struct mvi_space space;
    uint64_t edition; /* of the table */
    uint64_t flushes;
    uint64_t key; /* 0: none yet */
};

/*
 * Where this thread read a word of virtual memory last, and may read the next one without a look at anything but the edition
 * of the table; see struct mvi_near. Words of tables and those that are read have each its own last place.
 */
struct mvi_near_space {
    uintptr_t context; /* 0: none */
    uintptr_t keeper;  /* the same if translations are remembered, and it was no image; else 0 */
    uintptr_t walker;  /* the same if they are not, and the tables are those of x86 with four levels or five; else 0 */
    const uint64_t *place; /* where the present edition of the context's table stands, */
    uint64_t edition;      /* and which one this is of: */
    const struct mvi_table *table;
    uint64_t key;     /* of translations, if they are remembered, */
    uint64_t flushes; /* and until when */
    struct mvi_word data, entries;
    const struct mvi_view *view;
    bool keeps; /* translations are remembered */
    struct microvmi_address_space given;
};

/*
 * A walk through the memory of a machine that runs: all its entries. It helps as long as they are found unchanged, beside
 * what is read through them.
 */
struct mvi_path {
    uint64_t tag;                 /* as that of a translation */
    uint32_t count, size;         /* of the entries: how many, and bytes in all */
    uint32_t last_word;           /* of `entry`, by its index: all that is compared */
    uint64_t address[MVI_LEVELS]; /* physical */
    uint64_t entry[MVI_LEVELS];   /* their values; once it is remembered as they lie in memory, of 4 bytes or 8 each */
    uint8_t *bytes;               /* where the page lies in the other process: not an address here */
    struct iovec there[1 + MVI_LEVELS]; /* what is read there: the bytes, and each entry */
    const struct mvi_region *region;    /* of that process */
};

struct mvi_translations {
    struct mvi_near_space near;
    struct mvi_view *view; /* the one in use */
    uint64_t last_key;
    size_t next_view; /* that gives way to a new one */
    struct mvi_view views[MVI_VIEWS];
    struct mvi_kept_translation kept[MVI_KEPT_TRANSLATIONS];
    struct mvi_path paths[MVI_PATHS];
};

/* translations.c: what this thread remembers, made at the first use. NULL: there is no memory, or no way to free it. */
struct mvi_translations *mvi_translations_make(void);

/* Make another view the one in use, the one of that space if there is one. NULL with *wrong: there can be none. */
struct mvi_view *mvi_view_change(struct mvi_translations *own, const struct microvmi_address_space *given,
                                 const char **wrong);

/* A new key for a view, for translations of another table, or after a flush. */
void mvi_view_renew(struct mvi_translations *own, struct mvi_view *view, uint64_t edition, uint64_t flushes);

/* The next word of virtual memory is not read the fast way. */
static inline void mvi_near_forget(struct mvi_translations *own)
{
    own->near.context = own->near.keeper = own->near.walker = 0;
}

static inline struct mvi_translations *mvi_translations_own(void)
{
    return __builtin_expect(mvi_thread.translations != NULL, 1) ? mvi_thread.translations : mvi_translations_make();
}

static inline uint64_t mvi_word_of(const struct microvmi_address_space *space, size_t index)
{
    uint64_t word;

    memcpy(&word, (const uint8_t *)space + 8 * index, sizeof word);
    return word;
}

static inline bool mvi_same_space(const struct microvmi_address_space *first,
                                  const struct microvmi_address_space *second)
{
    _Static_assert(sizeof *first == 40, "all of it is compared");
    return mvi_word_of(first, 1) == mvi_word_of(second, 1) && mvi_word_of(first, 0) == mvi_word_of(second, 0) &&
           mvi_word_of(first, 2) == mvi_word_of(second, 2) && mvi_word_of(first, 3) == mvi_word_of(second, 3) &&
           mvi_word_of(first, 4) == mvi_word_of(second, 4);
}

/* The space that is made of `given`, whole, in `room` if nothing can be remembered. NULL with *wrong: it is none. */
static inline const struct mvi_space *mvi_space_ready(const struct microvmi_address_space *given,
                                                      struct mvi_space *room, const char **wrong)
{
    struct mvi_translations *own = mvi_translations_own();
    struct mvi_view *view;

    if (__builtin_expect(own == NULL, 0))
        return (*wrong = mvi_space_prepare(room, given)) == NULL ? room : NULL;
    if (__builtin_expect(mvi_same_space(&own->view->space.given, given), 1))
        return &own->view->space;
    view = mvi_view_change(own, given, wrong);
    return view != NULL ? &view->space : NULL;
}

/* How often translations of a table were to be forgotten; Python, which writes frames, tells the cache alone. */
static inline uint64_t mvi_table_flushes(const struct mvi_table *table)
{
    uint64_t flushes = __atomic_load_n(&table->flushes, __ATOMIC_ACQUIRE);

    return table->by_frames && table->cache != NULL ? flushes + mvi_cache_epoch(table->cache) : flushes;
}

/* What to look walks up with, and to keep them by: to be taken before a walk. 0: none can be remembered. */
static inline uint64_t mvi_walks_key(const struct mvi_table *table, const struct mvi_space *space)
{
    struct mvi_translations *own = mvi_translations_own();
    struct mvi_view *view;
    const char *wrong;
    uint64_t flushes;

    if (own == NULL)
        return 0;
    view = own->view;
    if (__builtin_expect(!mvi_same_space(&view->space.given, &space->given), 0) &&
        (view = mvi_view_change(own, &space->given, &wrong)) == NULL)
        return 0;
    flushes = mvi_table_flushes(table);
    if (__builtin_expect(view->key == 0 || view->edition != table->edition || view->flushes != flushes, 0))
        mvi_view_renew(own, view, table->edition, flushes);
    return view->key;
}

/* The same for translations, which are remembered of what lasts. */
static inline uint64_t mvi_translations_key(const struct mvi_table *table, const struct mvi_space *space)
{
    return table->lasts ? mvi_walks_key(table, space) : 0;
}

static inline struct mvi_kept_translation *mvi_kept_place(struct mvi_translations *own, uint64_t address)
{
    return &own->kept[address >> PAGE_SHIFT & (MVI_KEPT_TRANSLATIONS - 1)];
}

static inline uint64_t mvi_kept_tag(uint64_t address, uint64_t key)
{
    return (address & ~(uint64_t)(PAGE_SIZE - 1)) | key;
}

/* Where an address is, if that is remembered by a key. */
static inline bool mvi_translation_get(struct mvi_translations *own, uint64_t key, uint64_t address, uint64_t *physical)
{
    const struct mvi_kept_translation *kept = mvi_kept_place(own, address);

    if (kept->tag != mvi_kept_tag(address, key))
        return false;
    *physical = kept->page | (address & (PAGE_SIZE - 1));
    return true;
}

static inline void mvi_translation_keep(struct mvi_translations *own, uint64_t key, uint64_t address, uint64_t physical)
{
    *mvi_kept_place(own, address) = (struct mvi_kept_translation){
        .tag = mvi_kept_tag(address, key),
        .page = physical & ~(uint64_t)(PAGE_SIZE - 1),
    };
}

#endif
