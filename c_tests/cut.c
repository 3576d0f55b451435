/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cut FILE URI WHAT: the file behind a machine's memory (4 MiB) becomes shorter while it is open. A read that looks first
 * is an error that tells how much was there; WHAT is `large` for reads of 1 MiB, `medium` for 64 KiB after a while,
 * `new` for small reads of an image's chunk that nobody had read before, and `all` for reads of any size.
 */
#include <time.h>

#include "api.h"

#define SIZE (4u << 20)
#define LEFT (1u << 20)

static uint8_t bytes[SIZE];

/* A read of `size` bytes at an address, of which `valid` are still there. */
static void fails(void *vm, uint64_t address, size_t size, uint64_t valid)
{
    uint64_t count = 77;

    CHECK_SAYS(!microvmi_read_physical(vm, address, bytes, size, &count), "%zu bytes at 0x%" PRIx64, size, address);
    CHECK_SAYS(microvmi_last_error_code() == MICROVMI_ERROR_IO, "%d: %s", (int)microvmi_last_error_code(),
               microvmi_last_error());
    CHECK_SAYS(count == valid, "%" PRIu64 " of %zu bytes are valid, not %" PRIu64, count, size, valid);
}

static void stream_fails(void *vm)
{
    uint64_t count = 77, position = 0;

    CHECK(microvmi_seek(vm, LEFT - 4096, SEEK_SET, NULL));
    CHECK(!microvmi_read(vm, bytes, LEFT, &count) && microvmi_last_error_code() == MICROVMI_ERROR_IO);
    CHECK(count == 4096 && microvmi_tell(vm, &position) && position == LEFT);
}

int main(int argc, char **argv)
{
    struct timespec moment = {0, 5000000};
    const char *what = argc == 4 ? argv[3] : "";
    void *vm;

    CHECK_SAYS(argc == 4, "usage: cut FILE URI WHAT");
    vm = open_or_fail(argv[2]);
    CHECK(strcmp(what, "new") == 0 || microvmi_read_physical(vm, 0, bytes, SIZE, NULL));
    CHECK(truncate(argv[1], LEFT) == 0);
    nanosleep(&moment, NULL);
    if (strcmp(what, "large") == 0 || strcmp(what, "all") == 0) {
        fails(vm, LEFT, LEFT, 0);
        fails(vm, LEFT - 4096, LEFT, 4096);
        fails(vm, SIZE - LEFT, LEFT, 0);
        stream_fails(vm);
    }
    if (strcmp(what, "medium") == 0 || strcmp(what, "all") == 0) {
        fails(vm, LEFT, 64u << 10, 0);
        fails(vm, LEFT - 100, 64u << 10, 100);
    }
    if (strcmp(what, "new") == 0 || strcmp(what, "all") == 0) {
        fails(vm, LEFT, 8, 0);
        fails(vm, SIZE - 8, 8, 0);
        fails(vm, LEFT + 4096, 4096, 0);
        fails(vm, LEFT - 8, 16, 8);
    }
    CHECK(microvmi_read_physical(vm, 0, bytes, 8, NULL) && microvmi_read_physical(vm, 0, bytes, LEFT, NULL));
    microvmi_destroy(vm);
    return 0;
}
