/* SPDX-License-Identifier: Apache-2.0 */
/* Reads of many pages of virtual memory at once; see gather.c. */
#ifndef MVI_GATHER_H
#define MVI_GATHER_H

#include "paging.h"

/*
 * Do requests by their virtual addresses; each gets its own result. `padded`: what is not mapped, or is no memory, is
 * zeros. False: there is no memory for it, and nothing was done.
 */
bool mvi_gather_read(const struct mvi_table *table, const struct mvi_space *space, bool padded,
                     struct microvmi_read_request *requests, size_t count);

#endif
