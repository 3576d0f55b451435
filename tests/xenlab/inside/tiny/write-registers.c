/* SPDX-License-Identifier: Apache-2.0 */
/* Registers can be written: the guest goes on with them. */
#include "domain.h"

#define OTHER 0x0102030405060708

int main(void)
{
    void *vm = open_tiny();
    struct Registers registers, after;

    WORKS(microvmi_pause(vm));
    WORKS(microvmi_read_registers(vm, 0, &registers));
    registers.x86.r13 = OTHER;
    registers.x86.msr_lstar = KNOWN_LSTAR + PAGE;
    WORKS(microvmi_write_registers(vm, 0, &registers));
    WORKS(microvmi_resume(vm));
    CHECK_SAYS(counts(vm, 10), "the guest does not go on");

    WORKS(microvmi_pause(vm));
    WORKS(microvmi_read_registers(vm, 0, &after));
    CHECK(after.x86.r13 == OTHER);
    CHECK(after.x86.msr_lstar == KNOWN_LSTAR + PAGE);
    CHECK(after.x86.rbx == KNOWN_RBX && after.x86.r12 == KNOWN_R12 && after.x86.msr_star == KNOWN_STAR);
    microvmi_destroy(vm);
    return 0;
}
