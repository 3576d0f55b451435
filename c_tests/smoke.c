/* SPDX-License-Identifier: Apache-2.0 */
/*
 * smoke LIBRARY [ORIGINAL]: the shortest use of the library, silent when it works. Run under every hostile condition,
 * linked and through dlopen. Nothing that the process has mapped afterwards may lie in the directory ORIGINAL.
 */
#include "api.h"

static void nothing_mapped_from(const char *directory)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[8192];

    CHECK(maps != NULL);
    while (fgets(line, sizeof(line), maps) != NULL) {
        CHECK_SAYS(strstr(line, directory) == NULL, "mapped from where the library was built: %s", line);
    }
    fclose(maps);
}

int main(int argc, char **argv)
{
    uint64_t max_address = 0;
    const char *name;
    void *vm;

    CHECK_SAYS(argc >= 2, "usage: smoke LIBRARY [ORIGINAL]");
    use_library(argv[1]);
    vm = open_or_fail(FAKE);
    CHECK(microvmi_get_driver_type(vm) == MICROVMI_DRIVER_PLUGIN);
    name = microvmi_get_driver_name(vm);
    CHECK(name != NULL && strcmp(name, "fake") == 0);
    CHECK(microvmi_get_max_physical_addr(vm, &max_address) && max_address == 0x100000);
    check_frame(vm, 0);
    check_frame(vm, 255);
    CHECK(microvmi_last_error_code() == MICROVMI_OK && microvmi_last_error()[0] == '\0');
    microvmi_destroy(vm);
    if (argc == 3) {
        nothing_mapped_from(argv[2]);
    }
    return 0;
}
