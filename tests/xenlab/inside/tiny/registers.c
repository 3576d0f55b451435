/* SPDX-License-Identifier: Apache-2.0 */
/* Registers and model-specific registers are those that the guest set. */
#include "domain.h"

#define IS(name, value) \
    CHECK_SAYS(r->name == (value), "%s is %#" PRIx64 ", not %#" PRIx64, #name, (uint64_t)r->name, (uint64_t)(value))

static void check_general(const struct X86Registers *r)
{
    IS(rbx, KNOWN_RBX);
    IS(rbp, KNOWN_RBP);
    IS(rsi, KNOWN_RSI);
    IS(rdi, KNOWN_RDI);
    IS(r8, KNOWN_R8);
    IS(r9, KNOWN_R9);
    IS(r10, KNOWN_R10);
    IS(r11, KNOWN_R11);
    IS(r12, KNOWN_R12);
    IS(r13, KNOWN_R13);
    IS(r14, KNOWN_R14);
    IS(r15, KNOWN_R15);
    CHECK_SAYS(r->rip >= CODE_ADDRESS && r->rip < CODE_ADDRESS + PAGE, "rip is %#" PRIx64, r->rip);
    CHECK((r->rflags & 2) == 2);
}

static void check_system(const struct X86Registers *r)
{
    CHECK_SAYS(r->cr3 == TABLES_ADDRESS || r->cr3 == OTHER_ROOT_ADDRESS, "cr3 is %#" PRIx64, r->cr3);
    CHECK_SAYS((r->cr0 & 0x80000001) == 0x80000001, "cr0 is %#" PRIx64, r->cr0);
    CHECK_SAYS((r->cr4 & ~(uint64_t)CR4_FLIP) == 0x20, "cr4 is %#" PRIx64, r->cr4);
    IS(cs.selector, 8);
    IS(ss.selector, 16);
    IS(ds.selector, 16);
    IS(idt.limit, 32 * 16 - 1);
    IS(gdt.limit, 3 * 8 - 1);
}

/* SYSENTER_CS changes each round: it was written in this one or the one before. */
static void check_msrs(const struct X86Registers *r, uint64_t counter)
{
    IS(sysenter_esp, KNOWN_SYSENTER_ESP);
    IS(sysenter_eip, KNOWN_SYSENTER_EIP);
    IS(msr_star, KNOWN_STAR);
    IS(msr_lstar, KNOWN_LSTAR);
    IS(msr_efer, KNOWN_EFER);
    IS(efer, KNOWN_EFER);
    CHECK_SAYS(r->sysenter_cs == (counter & 0xffff) || r->sysenter_cs == ((counter - 1) & 0xffff),
               "sysenter_cs is %#" PRIx64 ", the counter %#" PRIx64, r->sysenter_cs, counter);
}

int main(void)
{
    void *vm = open_tiny();
    struct Registers registers;
    uint16_t vcpus;

    WORKS(microvmi_get_vcpu_count(vm, &vcpus));
    CHECK(vcpus == 1);
    WORKS(microvmi_pause(vm));
    WORKS(microvmi_read_registers(vm, 0, &registers));
    CHECK(registers.tag == X86);
    check_general(&registers.x86);
    check_system(&registers.x86);
    check_msrs(&registers.x86, read64(vm, COUNTER_ADDRESS));
    FAILS_WITH(MICROVMI_ERROR_INVALID_ARGUMENT, microvmi_read_registers(vm, 1, &registers));
    microvmi_destroy(vm);
    return 0;
}
