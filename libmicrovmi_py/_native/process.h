/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of another process: two system calls, each where it is the cheaper one. And files that are not mapped. */
#ifndef MVI_PROCESS_H
#define MVI_PROCESS_H

#include "table.h"

/* Reads and writes at an offset in a region, on from *done, which tells afterwards how much was done. */

/* /proc/PID/mem: cheap for little, and the descriptor belongs to the process for good. It waits for nothing: what has
 * not arrived yet is an error. */
int32_t mvi_process_pread(const struct mvi_region *region, uint64_t offset, uint8_t *buffer, size_t size, size_t *done);
int32_t mvi_process_read(const struct mvi_region *region, uint64_t offset, uint8_t *buffer, size_t size, size_t *done);
int32_t mvi_process_write(const struct mvi_region *region, uint64_t offset, const uint8_t *data, size_t size,
                          size_t *done);

#endif
