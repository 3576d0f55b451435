/* SPDX-License-Identifier: Apache-2.0 */
/*
 * odd-page: a driver (`odd`) whose memory begins at 0x1100 and ends at 0x2100, within pages that are kept: what lies
 * around it does not exist, however often its neighbours are read.
 */
#include "api.h"

int main(void)
{
    void *vm = open_or_fail("vmi://odd/");
    uint8_t bytes[16];
    uint64_t count;
    int i, k;

    for (i = 0; i < 3; i++) {
        CHECK(microvmi_read_physical(vm, 0x1100, bytes, 16, &count) && bytes[0] == 0x11 && bytes[15] == 0x11);
        CHECK(microvmi_read_physical(vm, 0x20f0, bytes, 16, &count) && bytes[15] == 0x11);
        CHECK(!microvmi_read_physical(vm, 0x1080, bytes, 8, &count) && count == 0);
        CHECK(!microvmi_read_physical(vm, 0x2100, bytes, 8, &count) && count == 0);
        CHECK(!microvmi_read_physical(vm, 0x20f8, bytes, 16, &count) && count == 8);
        CHECK(microvmi_read_physical_padded(vm, 0x10f8, bytes, 16, &count) && count == 16);
        for (k = 0; k < 16; k++) {
            CHECK(bytes[k] == (k < 8 ? 0 : 0x11));
        }
    }
    microvmi_destroy(vm);
    return 0;
}
