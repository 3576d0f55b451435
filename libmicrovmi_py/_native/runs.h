/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The walk over everything that page tables map, read by cffi and by the C compiler alike. It reads nothing itself: it
 * says which tables it needs, many at once, so that whoever reads them makes few trips. Results are runs: pages that are
 * neighbours in both spaces, with the same rights and of the same size.
 */

/* How many entries of tables one walk looks at before it ends early. */
#define MVI_RUNS_LIMIT 16777216

/* Memory for walks, one after another; NULL without memory. */
struct mvi_runs;
struct mvi_runs *mvi_runs_new(void);
void mvi_runs_free(struct mvi_runs *runs);

/* Begin a walk over the addresses from one to another, which is the last, for up to `capacity` ranges, at least one. */
void mvi_runs_begin(struct mvi_runs *runs, const struct mvi_space *space, uint64_t address, uint64_t last,
                    struct microvmi_virtual_range *ranges, size_t capacity);

/* Before the first step of a walk: tell only what has all these rights (bits of enum microvmi_page_rights), and none of
 * those. */
void mvi_runs_only(struct mvi_runs *runs, uint32_t having, uint32_t lacking);

/*
 * Go on as far as can be. How many reads have to be done before the next call, each with its result: what could not be
 * read of a table is taken for entries that are 0. 0 reads: the walk ended.
 */
size_t mvi_runs_want(struct mvi_runs *runs, struct microvmi_read_request **requests);

/*
 * Do the reads that are wanted through a table of regions. An error is that of a table of the guest's at *address, for any
 * other reason than that there is no memory.
 */
int32_t mvi_runs_read(struct mvi_runs *runs, const struct mvi_table *table, uint64_t *address);

/* How many ranges were filled, and the address to go on at: 0 if that was all. */
size_t mvi_runs_end(const struct mvi_runs *runs, uint64_t *address);
