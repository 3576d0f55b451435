/* SPDX-License-Identifier: Apache-2.0 */
/* What the example programs share: opening the machine that the command line names, and telling what went wrong. */
#ifndef EXAMPLES_TARGET_H
#define EXAMPLES_TARGET_H

#include <stdio.h>
#include <string.h>

#include <libmicrovmi.h>

#define TARGET_HELP \
    "TARGET is one of\n" \
    "  vmi://DRIVER/?key=value&...   any machine, e.g. vmi://qemu/?vm_name=debian\n" \
    "  a path with a slash           a memory image, e.g. ./memory.raw\n" \
    "  any other word                the name of a running virtual machine; if there is none, a file\n"

/*
 * Open TARGET. Returns a context for microvmi_destroy(), or NULL after it printed the reason to standard error.
 */
static inline void *open_target(const char *program, const char *target)
{
    const char *error = NULL;
    void *vm = microvmi_open(target, &error);

    if (vm == NULL) {
        fprintf(stderr, "%s: cannot open %s: %s\n", program, target, error != NULL ? error : "no reason given");
    }
    rs_cstring_free((char *)error);
    return vm;
}

/*
 * Pause the machine if its driver can. A machine that cannot be paused (a memory image) is no reason to stop; any
 * other failure is told, as what is read from a running machine may not fit together.
 */
static inline void pause_if_possible(const char *program, void *vm)
{
    if (!microvmi_pause(vm) && microvmi_last_error_code() != MICROVMI_ERROR_NOT_SUPPORTED) {
        fprintf(stderr, "%s: going on without a pause: %s\n", program, microvmi_last_error());
    }
}

#endif
