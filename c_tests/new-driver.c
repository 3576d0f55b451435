/* SPDX-License-Identifier: Apache-2.0 */
/*
 * new-driver LIBRARY URI NAME: opens a machine of a driver that this program was not built for, silent when it works.
 * The driver's name is NAME; every frame up to the maximum address, which is 64 KiB, is filled with its own number.
 */
#include "api.h"

static void check_memory(void *vm)
{
    uint8_t buffer[16];
    uint64_t max_address = 0;
    uint64_t count = 77;

    CHECK(microvmi_get_max_physical_addr(vm, &max_address) && max_address == 0x10000);
    for (uint64_t frame = 0; frame < 16; frame++) {
        check_frame(vm, frame);
    }
    CHECK(!microvmi_read_physical(vm, max_address - 8, buffer, sizeof(buffer), &count));
    CHECK(count == 8 && microvmi_last_error_code() == MICROVMI_ERROR_NOT_MAPPED);
}

int main(int argc, char **argv)
{
    const char *name;
    void *vm;

    CHECK_SAYS(argc == 4, "usage: new-driver LIBRARY URI NAME");
    use_library(argv[1]);
    vm = open_or_fail(argv[2]);
    name = microvmi_get_driver_name(vm);
    CHECK_SAYS(name != NULL && strcmp(name, argv[3]) == 0, "opened with %s", name != NULL ? name : "no driver");
    CHECK(microvmi_get_driver_type(vm) == MICROVMI_DRIVER_PLUGIN);
    check_memory(vm);
    microvmi_destroy(vm);
    return 0;
}
