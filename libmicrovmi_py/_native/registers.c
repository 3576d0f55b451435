/* SPDX-License-Identifier: Apache-2.0 */
/* The exported functions about registers; see entry.c. */
#include "entry.h"

/* ----------------------------------------------------------------------------------------------------- names ----- */

/* By number; a test compares them with those of the header and of Python. */
static const char *const mvi_x86_names[] = {
    "rax",
    "rbx",
    "rcx",
    "rdx",
    "rsi",
    "rdi",
    "rsp",
    "rbp",
    "r8",
    "r9",
    "r10",
    "r11",
    "r12",
    "r13",
    "r14",
    "r15",
    "rip",
    "rflags",
    "cr0",
    "cr2",
    "cr3",
    "cr4",
    "cr8",
    "dr0",
    "dr1",
    "dr2",
    "dr3",
    "dr6",
    "dr7",
    "xcr0",
    "efer",
    "star",
    "lstar",
    "cstar",
    "fmask",
    "kernel_gs_base",
    "sysenter_cs",
    "sysenter_esp",
    "sysenter_eip",
    "tsc_aux",
    "apic_base",
    "cs_base",
    "cs_limit",
    "cs_selector",
    "cs_attributes",
    "ds_base",
    "ds_limit",
    "ds_selector",
    "ds_attributes",
    "es_base",
    "es_limit",
    "es_selector",
    "es_attributes",
    "fs_base",
    "fs_limit",
    "fs_selector",
    "fs_attributes",
    "gs_base",
    "gs_limit",
    "gs_selector",
    "gs_attributes",
    "ss_base",
    "ss_limit",
    "ss_selector",
    "ss_attributes",
    "tr_base",
    "tr_limit",
    "tr_selector",
    "tr_attributes",
    "ldt_base",
    "ldt_limit",
    "ldt_selector",
    "ldt_attributes",
    "gdt_base",
    "gdt_limit",
    "idt_base",
    "idt_limit",
};
static const char *const mvi_aarch64_names[] = {
    "x0",
    "x1",
    "x2",
    "x3",
    "x4",
    "x5",
    "x6",
    "x7",
    "x8",
    "x9",
    "x10",
    "x11",
    "x12",
    "x13",
    "x14",
    "x15",
    "x16",
    "x17",
    "x18",
    "x19",
    "x20",
    "x21",
    "x22",
    "x23",
    "x24",
    "x25",
    "x26",
    "x27",
    "x28",
    "x29",
    "x30",
    "pc",
    "pstate",
    "sp_el0",
    "sp_el1",
    "ttbr0_el1",
    "ttbr1_el1",
    "tcr_el1",
    "sctlr_el1",
    "mair_el1",
    "vbar_el1",
    "esr_el1",
    "far_el1",
    "elr_el1",
    "spsr_el1",
    "tpidr_el0",
    "tpidr_el1",
    "contextidr_el1",
    "midr_el1",
    "id_aa64mmfr0_el1",
    "actlr_el1",
    "afsr0_el1",
    "afsr1_el1",
    "amair_el1",
    "cntkctl_el1",
    "cpacr_el1",
    "mdscr_el1",
    "mpidr_el1",
    "par_el1",
    "tpidrro_el0",
    "fpcr",
    "fpsr",
    "id_aa64mmfr1_el1",
    "id_aa64mmfr2_el1",
    "id_aa64pfr0_el1",
    "id_aa64pfr1_el1",
    "sp_el2",
    "elr_el2",
    "spsr_el2",
    "esr_el2",
    "far_el2",
    "hcr_el2",
    "sctlr_el2",
    "mair_el2",
    "tcr_el2",
    "ttbr0_el2",
    "vbar_el2",
    "vtcr_el2",
    "vttbr_el2",
    "tpidr_el2",
};

_Static_assert(sizeof mvi_x86_names / sizeof *mvi_x86_names == MICROVMI_X86_IDT_LIMIT + 1, "a number each");
_Static_assert(sizeof mvi_aarch64_names / sizeof *mvi_aarch64_names == MICROVMI_AARCH64_TPIDR_EL2 + 1, "a number each");

const char *microvmi_register_name(uint32_t architecture, uint32_t number)
{
    if (architecture == X86 && number < sizeof mvi_x86_names / sizeof *mvi_x86_names)
        return mvi_x86_names[number];
    if (architecture == MICROVMI_REGISTERS_AARCH64 && number < sizeof mvi_aarch64_names / sizeof *mvi_aarch64_names)
        return mvi_aarch64_names[number];
    return NULL;
}

/* ------------------------------------------------------------------------------------- the struct of 0.4.0 ------- */

bool microvmi_read_registers(void *context, uint16_t vcpu, struct Registers *registers)
{
    return mvi_enter(context) && mvi_need(registers, "registers") &&
           mvi_leave(mvi_py_read_registers((uintptr_t)context, vcpu, registers));
}

bool microvmi_write_registers(void *context, uint16_t vcpu, const struct Registers *registers)
{
    return mvi_enter(context) && mvi_need(registers, "registers") &&
           mvi_leave(mvi_py_write_registers((uintptr_t)context, vcpu, registers));
}

/* ------------------------------------------------------------------------------------------- every register ------ */

/* What its first version held: nobody's is smaller. */
#define MVI_VCPU_STATE_SIZE 2096u

_Static_assert(sizeof(struct microvmi_vcpu_state) == MVI_VCPU_STATE_SIZE, "grown: see mvi_need_struct()");

static bool mvi_need_state(const struct microvmi_vcpu_state *state, const char *name)
{
    return mvi_need_struct(state != NULL ? &state->struct_size : NULL, MVI_VCPU_STATE_SIZE, name,
                           "MICROVMI_VCPU_STATE_INIT");
}

bool microvmi_read_vcpu_states(void *context, struct microvmi_vcpu_state *states, size_t capacity, size_t *count)
{
    size_t known = 0;
    bool got = mvi_enter(context) && mvi_need(count, "count") && (capacity == 0 || mvi_need_state(states, "states")) &&
               mvi_leave(mvi_py_read_vcpu_states((uintptr_t)context, states, capacity, &known));

    if (count != NULL)
        *count = known;
    return got;
}

bool microvmi_read_vcpu_state(void *context, uint16_t vcpu, struct microvmi_vcpu_state *state)
{
    return mvi_enter(context) && mvi_need_state(state, "state") &&
           mvi_leave(mvi_py_read_vcpu_state((uintptr_t)context, vcpu, state));
}

bool microvmi_write_vcpu_state(void *context, uint16_t vcpu, const struct microvmi_vcpu_state *state)
{
    return mvi_enter(context) && mvi_need_state(state, "state") &&
           mvi_leave(mvi_py_write_vcpu_state((uintptr_t)context, vcpu, state));
}
