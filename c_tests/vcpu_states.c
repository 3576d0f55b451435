/* SPDX-License-Identifier: Apache-2.0 */
/* States of vCPUs as a C program reads and writes them. */
#include "api.h"

static void writes(void *vm)
{
    struct microvmi_vcpu_state state = MICROVMI_VCPU_STATE_INIT, back = MICROVMI_VCPU_STATE_INIT;

    MICROVMI_SET_KNOWN(&state, MICROVMI_X86_LSTAR);
    MICROVMI_SET_KNOWN(&state, MICROVMI_X86_IDT_LIMIT);
    state.value[MICROVMI_X86_LSTAR] = UINT64_C(0xffffffff81000000);
    state.value[MICROVMI_X86_IDT_LIMIT] = 0xfff;
    CHECK(microvmi_write_vcpu_state(vm, 1, &state));
    CHECK(microvmi_read_vcpu_state(vm, 1, &back));
    CHECK(MICROVMI_IS_KNOWN(&back, MICROVMI_X86_LSTAR) && !MICROVMI_IS_KNOWN(&back, 255));
    CHECK(back.value[MICROVMI_X86_LSTAR] == UINT64_C(0xffffffff81000000));
    CHECK(back.value[MICROVMI_X86_IDT_LIMIT] == 0xfff);
    CHECK(back.value[MICROVMI_X86_RIP] == 0xfff0);
}

int main(void)
{
    struct microvmi_vcpu_state states[2] = {MICROVMI_VCPU_STATE_INIT};
    void *vm = microvmi_open("vmi://fake/?vcpus=2", NULL);
    size_t count = 0;

    CHECK(vm != NULL);
    writes(vm);
    CHECK(microvmi_read_vcpu_states(vm, states, 2, &count) && count == 2);
    CHECK(states[0].architecture == X86 && states[1].vcpu == 1);
    CHECK(states[0].value[MICROVMI_X86_LSTAR] == 0 && MICROVMI_IS_KNOWN(&states[0], MICROVMI_X86_LSTAR));
    CHECK(strcmp(microvmi_register_name(X86, MICROVMI_X86_KERNEL_GS_BASE), "kernel_gs_base") == 0);
    CHECK(microvmi_register_name(X86, 256) == NULL);
    microvmi_destroy(vm);
    return 0;
}
