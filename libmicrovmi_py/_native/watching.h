/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The watcher: a program of ours that lives as long as something of ours is changed in QEMU that nobody else would undo, and
 * takes it back if this process ends before it has done so itself. Read by cffi and by the C compiler alike. See watcher.c.
 */

/*
 * Start `program` for a job, about a QEMU, given by its process and the address of its monitor. `word` is the end of a
 * connection on which it hears from us, `door` the monitor's socket in the file system, or -1, `other` what the job needs,
 * or -1. The host's wait() does not see it, and no SIGCHLD tells of it, unless the host has the kernel make it the parent
 * of orphans: `child` is its number then, else 0. Returns 0 or a number of errno, with nothing left of it.
 */
int32_t mvi_watcher_start(const char *program, const char *job, const char *process, const char *address, int32_t word,
                          int32_t door, int32_t other, int32_t *child);

/* Of a watcher that was told to end, and is a child of ours: leave no zombie of it. Waits a second at the most. */
void mvi_watcher_reap(int32_t child);
