/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All that a thread has of its own, in one place, which the fast way reaches by one look-up. It is defined in thread.c,
 * once: no other file has variables of a thread.
 */
#ifndef MVI_THREAD_H
#define MVI_THREAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mvi_reader;
struct mvi_translations;

/*
 * Where this thread read a word last, and may read the next one without a look at anything but the edition; see
 * readers.h. `context` is 0 (which is none) when there is no such place, and as long as the thread has an error.
 */
struct mvi_near {
    uintptr_t context;
    uint64_t start, span;  /* words of 8 bytes from here on, so many of them; */
    const uint8_t *bytes;  /* here */
    const uint64_t *place; /* where the present edition of the context's table stands, */
    uint64_t edition;      /* and which one this is of */
};

/* A look at something outside: at what, and when (ns). */
struct mvi_look {
    uint64_t at_what; /* 0: none yet */
    int64_t when;
};

struct mvi_thread {
    struct mvi_reader *reader; /* readers.h; NULL before the first direct access */
    struct mvi_near near;
    size_t last_hit;                       /* table.h: the region found last; a guess, checked before it is used */
    int32_t code;                          /* error.c: the error of the last call, */
    char *text;                            /* and its text: heap, freed when the thread ends; NULL stands for "" */
    uintptr_t stack;                       /* calls.c: the thread's stack, from here */
    uintptr_t stack_end;                   /* to here; 0: not known yet */
    struct mvi_look process;               /* look.h: the last process that was found running, */
    struct mvi_look file;                  /* and the last region whose file was found whole */
    uint64_t failed_position;              /* stream.c: where the last read of a stream that failed began, */
    uint64_t failed_done;                  /* and how much it had read */
    struct mvi_translations *translations; /* translations.h: heap, freed when the thread ends; NULL: none yet */
    bool interrupted;                      /* calls.c: the host's Python is owed a KeyboardInterrupt */
    bool hushed;                           /* libvirt.c: libvirt's library prints nothing of its errors */
};
extern __attribute__((visibility("hidden"))) __thread struct mvi_thread mvi_thread;

#endif
