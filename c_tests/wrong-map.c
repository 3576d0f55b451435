/* SPDX-License-Identifier: Apache-2.0 */
/* wrong-map: a driver of somebody else's (`wrong`) tells regions that overlap: an I/O error, and nothing is read by them. */
#include "api.h"

static void fails(bool done)
{
    CHECK(!done);
    CHECK_SAYS(microvmi_last_error_code() == MICROVMI_ERROR_IO, "%d: %s", (int)microvmi_last_error_code(),
               microvmi_last_error());
    CHECK_SAYS(strstr(microvmi_last_error(), "memory map is wrong") != NULL, "%s", microvmi_last_error());
}

int main(void)
{
    struct microvmi_memory_range ranges[4];
    const char *error = NULL;
    uint8_t bytes[64];
    size_t count = 77;
    int i;
    void *vm;

    for (i = 0; i < 3; i++) {
        fails(microvmi_open("vmi://wrong/", &error) != NULL);
        CHECK(error != NULL);
        rs_cstring_free((char *)error);
    }
    vm = open_or_fail("vmi://wrong/?late=yes");
    CHECK(microvmi_read_physical(vm, 0x8000, bytes, sizeof(bytes), NULL));
    fails(microvmi_get_memory_map(vm, ranges, 4, &count));
    CHECK(count == 0);
    for (i = 0; i < 3; i++) { /* by the map before, or not at all */
        CHECK(microvmi_read_physical(vm, 0x8000, bytes, sizeof(bytes), NULL) ||
              microvmi_last_error_code() == MICROVMI_ERROR_IO);
    }
    microvmi_destroy(vm);
    check_frame(open_or_fail(FAKE), 1);
    return 0;
}
