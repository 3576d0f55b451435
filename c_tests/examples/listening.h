/* SPDX-License-Identifier: Apache-2.0 */
/* What the example programs that listen to events share: when they end, the loop, and answering. */
#ifndef EXAMPLES_LISTENING_H
#define EXAMPLES_LISTENING_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <libmicrovmi.h>

#include "ending.h"

#define LOOK_MS 200 /* between two looks whether an end was asked for */

#define LIMIT_OPTIONS "n:t:"
#define LIMIT_HELP \
    "  -n COUNT    end after so many events\n" \
    "  -t SECONDS  end after this time\n"

/* When it ends by itself; below 0: never. */
struct limits {
    long count;
    double seconds;
};

/* What is done with an event: it is printed, and answered. False after the reason was printed. */
typedef bool event_handler(void *vm, const struct microvmi_event *event, void *data);

/* Take one of LIMIT_OPTIONS. False if it is none of them, or its argument is no number, which is told. */
static inline bool take_limit_option(const char *program, int option, const char *argument, struct limits *limits)
{
    char *end = NULL;

    if (option == 'n') {
        limits->count = strtol(argument, &end, 10);
    } else if (option == 't') {
        limits->seconds = strtod(argument, &end);
    } else {
        return false;
    }
    if (end == argument || *end != '\0') {
        fprintf(stderr, "%s: %s: not a number\n", program, argument);
        return false;
    }
    return true;
}

/* An address or a number, in hexadecimal with 0x before it. False after it was told that the text is none. */
static inline bool take_number(const char *program, const char *text, uint64_t *number)
{
    char *end = NULL;

    *number = strtoull(text, &end, 0);
    if (end == text || *end != '\0' || strchr(text, '-') != NULL) {
        fprintf(stderr, "%s: %s: not a number\n", program, text);
        return false;
    }
    return true;
}

/* Intercept something on every vCPU. `what` names it in the error that is printed. */
static inline bool intercept(const char *program, void *vm, const struct microvmi_intercept *wanted, const char *what)
{
    if (!microvmi_toggle_intercept(vm, MICROVMI_ALL_VCPUS, wanted, true)) {
        fprintf(stderr, "%s: cannot watch %s: %s\n", program, what, microvmi_last_error());
        return false;
    }
    return true;
}

/* Let the guest go on, unless nothing stands by this event. */
static inline bool let_go(const char *program, void *vm, const struct microvmi_event *event)
{
    if (event->stands != MICROVMI_STANDS_NOTHING && !microvmi_reply_event(vm, event, NULL)) {
        fprintf(stderr, "%s: cannot answer: %s\n", program, microvmi_last_error());
        return false;
    }
    return true;
}

/* Hand events to `handle` until an end is asked for, by a signal or by the limits. Returns the exit code. */
static inline int listen_for(const char *program, void *vm, const struct limits *limits, event_handler *handle,
                             void *data)
{
    time_t start = time(NULL);
    long seen = 0;

    setvbuf(stdout, NULL, _IOLBF, 0); /* a reader of a pipe has each event when it came */
    while (ending_signal() == 0 && (limits->count < 0 || seen < limits->count) &&
           (limits->seconds < 0 || difftime(time(NULL), start) < limits->seconds)) {
        struct microvmi_event event = MICROVMI_EVENT_INIT;

        if (microvmi_listen(vm, LOOK_MS, &event)) {
            if (!handle(vm, &event, data)) {
                return 1;
            }
            seen++;
        } else if (microvmi_last_error_code() != MICROVMI_ERROR_TIMEOUT) {
            fprintf(stderr, "%s: cannot listen: %s\n", program, microvmi_last_error());
            return 1;
        }
    }
    return ending_signal() != 0 ? 128 + ending_signal() : 0;
}

#endif
