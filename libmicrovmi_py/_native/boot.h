/* SPDX-License-Identifier: Apache-2.0 */
/* What start-up consists of; boot.c calls it in its order. */
#ifndef MVI_BOOT_H
#define MVI_BOOT_H

#include <limits.h>
#include <stdbool.h>

/* boot.c: why start-up failed: for good, or for a reason that may pass. The first one counts. */
enum mvi_how {
    MVI_FOR_GOOD,
    MVI_FOR_NOW
};
void mvi_boot_fail(enum mvi_how how, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* environment.c: find the directory with our Python modules; false: start-up failed. "" until then. */
bool mvi_private_find(void);
const char *mvi_private_directory(void);
/* environment.c: whether that is where a Python has its packages, as a wheel lays ours there. */
bool mvi_private_is_package(void);

/* fork.c: be told of forks, if that could not be had when the library was loaded. False: without memory. */
bool mvi_fork_watch(void);
/* Whether nothing is under way, or has been done, that a child of fork() could not live with. */
bool mvi_boot_is_idle(void);
bool mvi_python_is_idle(void);
bool mvi_standard_is_idle(void);

/* python.c: the Python of this process, or else (load) the one that the library was built for. */
bool mvi_python_find(bool load);
/* python.c: true once Python's functions may be called. */
bool mvi_python_known(void);
/* python.c: the file that they are in; "" until then. */
const char *mvi_python_file(void);

/* home.c: load the libpython that the library starts. NULL: start-up failed. */
void *mvi_home_load(void);

/* What a Python is started with. */
struct mvi_home {
    char prefix[PATH_MAX];
    char program[PATH_MAX];
    char modules[PATH_MAX]; /* the standard library */
    char dynload[PATH_MAX];
};
/* home.c: what goes with a loaded libpython. False: start-up failed. */
bool mvi_home_find(const char *libpython, struct mvi_home *home);

/* interpreter.c: whether Python runs; whether there is room for its start; start it. */
bool mvi_interpreter_runs(void);
bool mvi_interpreter_has_room(void);
bool mvi_interpreter_start(void);
/* interpreter.c: whether this thread is in an interpreter where we are not. */
bool mvi_in_sub_interpreter(void);

/* modules.c: load the Python part; `ours`: nobody else runs Python in this process. On a thread without Python's lock. */
bool mvi_modules_load(bool ours);

#endif
