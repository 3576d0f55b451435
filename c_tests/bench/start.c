/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The start of a program that is linked with the library. Usage: start URI again, or start URI, or start without one.
 * Prints nanoseconds of CLOCK_MONOTONIC: at the start of main(), after the first open and read of a byte, and with a
 * second argument after a second one.
 */
#include "bench.h"

#include <inttypes.h>

static uint64_t first_byte(const char *uri)
{
    const char *error = NULL;
    void *vm = microvmi_open(uri, &error);
    uint8_t byte = 0;
    uint64_t read_at;

    CHECK_SAYS(vm != NULL, "cannot open %s: %s", uri, error);
    CHECK_SAYS(microvmi_read_physical(vm, MIB, &byte, 1, NULL), "%s", microvmi_last_error());
    read_at = now_ns();
    microvmi_destroy(vm);
    return read_at;
}

int main(int argc, char **argv)
{
    uint64_t main_at = now_ns(), first = main_at, again = main_at, second = main_at;

    if (argc > 1)
        first = first_byte(argv[1]);
    if (argc > 2) {
        again = now_ns();
        second = first_byte(argv[1]);
    }
    printf("%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\n", main_at, first, again, second);
    return 0;
}
