/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The parts of the watcher, a program of its own; see watcher.c.
 */
#ifndef MVI_WATCHER_H
#define MVI_WATCHER_H

#include <stdbool.h>
#include <stddef.h>

/* Descriptors. What a job has beside a word, a door and a starter is its own. */
#define WATCH_WORD 0
#define WATCH_DOOR 1
#define WATCH_STARTER 2
#define WATCH_OWN 3
#define WATCH_OTHERS 4 /* from here on they are not ours */

#define WATCH_DONE '.' /* the word that nothing is to be undone */

#define WATCH_PATIENCE 600000 /* milliseconds for a monitor that somebody else uses */

enum watch_outcome {
    WATCH_OVER,
    WATCH_LATER,  /* to be tried again in a moment */
    WATCH_UNKNOWN /* QEMU ended, or does not answer */
};

/* What is watched: QEMU's process, its monitor ("" is none), and what was told last of each that is told. */
struct watch_machine {
    const char *pid;
    const char *address;
    bool runs;        /* the machine is to run when the process has ended */
    bool interrupted; /* it may be paused by the process, for a moment */
};

/* A connection to the monitor that takes commands, within so many milliseconds, or -1. It is the only one at a time. */
int watch_connect(const struct watch_machine *machine, int milliseconds);

/* Whether QEMU carried out a command, a line of JSON, which is given an id here. */
bool watch_ask(int monitor, const char *command);

/* Whether its answer, without white space, has that text. */
bool watch_has(const char *text);

/* The object of a list that it answered, as far as its texts have no brackets, which has that text; NULL: none. */
const char *watch_object(const char *text, size_t *size);

/* The next number that stands behind a text in its answer; `*place` is NULL before the first. 0: there is no other. */
unsigned long watch_number(const char *text, const char **place);

#define WATCH_EXECUTE(command) "{\"execute\":\"" command "\"}\n"
#define WATCH_EXECUTE_WITH(command, arguments) "{\"execute\":\"" command "\",\"arguments\":{" arguments "}}\n"

/* The jobs, once the process has ended without having undone what it did. */
enum watch_outcome watch_snapshot(const struct watch_machine *machine);
enum watch_outcome watch_pause(const struct watch_machine *machine);
enum watch_outcome watch_events(const struct watch_machine *machine);
enum watch_outcome watch_observe(const struct watch_machine *machine);

/* Read QEMU's log until the process has ended; true: it has said that nothing is to be undone. */
bool watch_read_log(struct watch_machine *machine);

#endif
