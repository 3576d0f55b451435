/* SPDX-License-Identifier: Apache-2.0 */
#include "api.h"
int main(void)
{
    const char *error = NULL;
    uint8_t b[8];
    void *vm = microvmi_open("vmi://fake/?size=0x200000", &error);
    CHECK_SAYS(vm != NULL, "%s", error);
    CHECK(microvmi_read_physical(vm, 0x1000, b, 8, NULL));
    printf("figure: first byte %d\n", b[0]);
    printf("%s\n", microvmi_build_info());
    microvmi_destroy(vm);
    return 0;
}
