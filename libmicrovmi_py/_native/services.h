/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * What the Python side of the library calls besides direct.h: read by cffi and by the C compiler alike.
 */

/* Whether the environment counts: not if the process has more rights than the user who started it. */
bool mvi_environment_counts(void);

/* An interrupt that was taken in a call is the host's: it gets it when the call is over. */
void mvi_hand_on_interrupt(void);

/* The calling thread's error. */
void mvi_set_error(int32_t code, const char *text);

/* What a context tells without Python. */
void mvi_context_describe(void *context, int32_t driver_type, const char *driver_name);

/*
 * From now on reads go through `table` (NULL: through Python); returns when nobody uses the one before any more, or
 * after some seconds. False: the context is not live, and the one before may still be in use until mvi_context_retire()
 * returns.
 */
bool mvi_context_publish(uintptr_t context, struct mvi_table *table, struct mvi_cursor *plain,
                         struct mvi_cursor *padded);

/* Whether a read still goes through a table that was replaced, or whose context was retired. */
bool mvi_context_reads(const struct mvi_table *table);
