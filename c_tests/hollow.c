/* SPDX-License-Identifier: Apache-2.0 */
/* hollow IMAGE: an image of 4 MiB that is one hole reads as zeros in pieces of every size, from word to whole. */
#include "api.h"

#define SIZE (4u << 20)

static uint8_t bytes[SIZE];

int main(int argc, char **argv)
{
    size_t size, i;
    uint64_t address;
    void *vm;

    CHECK_SAYS(argc == 2, "usage: hollow IMAGE");
    vm = open_or_fail(argv[1]);
    for (size = 8; size <= SIZE; size *= 8) {
        for (address = 0; address + size <= SIZE; address += size > 16384 ? size : 16384) {
            memset(bytes, 0xee, size);
            CHECK_SAYS(microvmi_read_physical(vm, address, bytes, size, NULL), "%s", microvmi_last_error());
            for (i = 0; i < size; i++) {
                CHECK(bytes[i] == 0);
            }
        }
    }
    microvmi_destroy(vm);
    return 0;
}
