/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the test programs share. A program exits with 0 when everything held; otherwise it says on standard error what
 * did not, and exits with 1.
 */
#ifndef C_TESTS_CHECK_H
#define C_TESTS_CHECK_H

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Ends the process at once: after a fork the library's exit handling must not run twice. */
static inline void fail(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));

static inline void fail(const char *file, int line, const char *format, ...)
{
    va_list arguments;

    fprintf(stderr, "%s:%d: ", file, line);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    fflush(NULL);
    _exit(1);
}

#define FAIL(...) fail(__FILE__, __LINE__, __VA_ARGS__)
#define CHECK(condition) ((condition) ? (void)0 : FAIL("not true: %s", #condition))
#define CHECK_SAYS(condition, ...) ((condition) ? (void)0 : FAIL(__VA_ARGS__))

#endif
