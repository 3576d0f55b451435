/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Virtual memory: read by cffi and by the C compiler alike. The rules of page tables are in paging.h, in C alone. Results
 * are those of direct.h; MVI_ASK_PYTHON (-1) is for memory by frames that C cannot read by itself, too.
 */

/* A walk has no more levels than this. */
#define MVI_LEVELS 5

/*
 * One half of an address space: the addresses whose highest bit that counts is 0, or 1. The arrays go by level - 1; level 1
 * is that of the smallest pages.
 */
struct mvi_half {
    uint64_t root;                       /* the table of the highest level: a physical address */
    uint64_t frame_bits;                 /* of an entry: where the page or the next table is */
    uint32_t levels;                     /* 0: there is no such half */
    uint32_t ignored_bits;               /* at the top of an address */
    uint32_t address_bits;               /* those that are not ignored are all alike from this one on */
    uint32_t page_shift;                 /* of the smallest pages */
    uint32_t level_bits;                 /* of an index into a table, */
    uint32_t top_bits;                   /* and into that of the highest level */
    bool closed;                         /* walks are switched off: no address is mapped */
    bool far;                            /* bits 12 to 15 of an entry are bits 48 to 51 of the address */
    bool plain;                          /* what tables allow is not regarded, but what pages do */
    uint64_t reserved[MVI_LEVELS];       /* what must not be set in an entry of a table or of a smallest page, */
    uint64_t reserved_large[MVI_LEVELS]; /* and of a large one */
};

/* An address space, made ready for walks: nothing but numbers, which stay as they are. */
struct mvi_space {
    struct microvmi_address_space given; /* what it was made of */
    uint32_t entry_size;                 /* bytes */
    uint32_t choosing_bit;               /* of an address: which half it is of */
    bool aarch64;
    bool off;           /* virtual addresses are physical ones */
    bool dirty;         /* AArch64: the processor lets pages be written that are marked as clean */
    uint64_t large_bit; /* x86: an entry with it is of a large page; 0: none is */
    struct mvi_half halves[2];
};

/* Make one ready. NULL: it is; else what is wrong with `given`, whose struct_size was checked. */
const char *mvi_space_prepare(struct mvi_space *space, const struct microvmi_address_space *given);

/* A walk whose entries somebody else reads. */
struct mvi_walk {
    uint64_t virtual_address;
    uint64_t entry_address; /* the physical address of the entry that is needed, `entry_size` bytes of the space */
    uint64_t entry;         /* the last one that was fed */
    uint64_t address;       /* the physical address, at the end */
    uint32_t level;         /* of the entry that is needed, or that ended the walk; 0: there was none */
    uint32_t rights;        /* that are left, bits of enum microvmi_page_rights */
    uint32_t failure;       /* enum microvmi_translation_failure, at the end */
    uint32_t half;          /* of the space */
};

/*
 * Many walks at once, whose entries Python reads. Where the entries are that are needed stands in `places` afterwards, as
 * many as are returned, some of them twice; 0: all walks are over.
 */
size_t mvi_walks_begin(const struct mvi_space *space, struct mvi_walk *walks, const uint64_t *addresses, size_t count,
                       uint64_t *places);
/* The values of all that were needed, whose places ascend; those with `there` false are no memory. */
size_t mvi_walks_feed(const struct mvi_space *space, struct mvi_walk *walks, size_t count, const uint64_t *read,
                      const uint64_t *entries, const bool *there, size_t read_count, uint64_t *places);
/* What became of them, and where each is in physical memory: MICROVMI_ADDRESS_UNKNOWN for nowhere. */
void mvi_walks_tell(const struct mvi_space *space, const struct mvi_walk *walks, size_t count,
                    struct microvmi_translation *translations, uint64_t *physical);
/* There is no memory where the entry should be: the walk is over. */
void mvi_walk_refuse(struct mvi_walk *walk);
/* What became of a walk that is over; struct_size is set. */
void mvi_walk_tell(const struct mvi_space *space, const struct mvi_walk *walk,
                   struct microvmi_translation *translation);

/* ------------------------------------------------------------------------------------------------ by a table ----- */

/*
 * As mvi_table_read() and its neighbours, by virtual addresses. After MICROVMI_ERROR_NOT_MAPPED `end` tells at which
 * translation it ended: one that failed, or one whose physical address, at address + *done, is not memory. In other cases
 * what it holds is not to be used.
 */
int32_t mvi_virtual_translate(const struct mvi_table *table, const struct mvi_space *space, uint64_t address,
                              struct microvmi_translation *translation);
/* At which translation an access ended, that is looked up once more; behind the last address there is none. */
void mvi_virtual_end(const struct mvi_table *table, const struct mvi_space *space, uint64_t address, uint64_t done,
                     struct microvmi_translation *end);
int32_t mvi_virtual_read(const struct mvi_table *table, const struct mvi_space *space, bool padded, uint64_t address,
                         uint8_t *buffer, size_t size, uint64_t *done, struct microvmi_translation *end);
int32_t mvi_virtual_write(const struct mvi_table *table, const struct mvi_space *space, uint64_t address,
                          const uint8_t *data, size_t size, bool checked, uint64_t *done,
                          struct microvmi_translation *end);
/* True if all were whole. */
bool mvi_virtual_read_batch(const struct mvi_table *table, const struct mvi_space *space,
                            struct microvmi_read_request *requests, size_t count);

/* What a result means, as mvi_describe(), with the translation that it ended at. */
void mvi_describe_virtual(int32_t code, uint64_t address, size_t size, uint64_t done,
                          const struct microvmi_translation *end, char *text, size_t room);
