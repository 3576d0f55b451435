/* SPDX-License-Identifier: Apache-2.0 */
/*
 * regs-dump: print the registers of all vCPUs of a machine, or of one.
 *
 *   cc -o regs-dump regs-dump.c -lmicrovmi
 *   ./regs-dump debian 0
 *
 * One register a line, `name value`, in hexadecimal; each vCPU begins with a line `vcpu N`. The machine is paused
 * meanwhile if its driver can, so that the values belong together.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ending.h"
#include "target.h"

#define PROGRAM "regs-dump"
#define ALL_VCPUS (-1L)

static void print_register(const char *name, uint64_t value)
{
    printf("%-14s 0x%016" PRIx64 "\n", name, value);
}

static void print_field(const char *name, const char *field, int digits, uint64_t value)
{
    char full[16];

    snprintf(full, sizeof(full), "%s.%s", name, field);
    printf("%-14s 0x%0*" PRIx64 "\n", full, digits, value);
}

static void print_segment(const char *name, const struct SegmentReg *segment)
{
    print_field(name, "base", 16, segment->base);
    print_field(name, "limit", 8, segment->limit);
    print_field(name, "selector", 4, segment->selector);
}

static void print_table(const char *name, const struct SystemTableReg *table)
{
    print_field(name, "base", 16, table->base);
    print_field(name, "limit", 4, table->limit);
}

#define PRINT_REGISTER(name) print_register(#name, regs->name)
#define PRINT_SEGMENT(name) print_segment(#name, &regs->name)
#define PRINT_TABLE(name) print_table(#name, &regs->name)

static void print_general(const struct X86Registers *regs)
{
    PRINT_REGISTER(rax);
    PRINT_REGISTER(rbx);
    PRINT_REGISTER(rcx);
    PRINT_REGISTER(rdx);
    PRINT_REGISTER(rsi);
    PRINT_REGISTER(rdi);
    PRINT_REGISTER(rsp);
    PRINT_REGISTER(rbp);
    PRINT_REGISTER(r8);
    PRINT_REGISTER(r9);
    PRINT_REGISTER(r10);
    PRINT_REGISTER(r11);
    PRINT_REGISTER(r12);
    PRINT_REGISTER(r13);
    PRINT_REGISTER(r14);
    PRINT_REGISTER(r15);
    PRINT_REGISTER(rip);
    PRINT_REGISTER(rflags);
}

static void print_system(const struct X86Registers *regs)
{
    PRINT_REGISTER(cr0);
    PRINT_REGISTER(cr2);
    PRINT_REGISTER(cr3);
    PRINT_REGISTER(cr4);
    PRINT_REGISTER(sysenter_cs);
    PRINT_REGISTER(sysenter_esp);
    PRINT_REGISTER(sysenter_eip);
    PRINT_REGISTER(msr_efer);
    PRINT_REGISTER(msr_star);
    PRINT_REGISTER(msr_lstar);
    PRINT_REGISTER(efer);
    PRINT_REGISTER(apic_base);
}

static void print_segments(const struct X86Registers *regs)
{
    PRINT_SEGMENT(cs);
    PRINT_SEGMENT(ds);
    PRINT_SEGMENT(es);
    PRINT_SEGMENT(fs);
    PRINT_SEGMENT(gs);
    PRINT_SEGMENT(ss);
    PRINT_SEGMENT(tr);
    PRINT_SEGMENT(ldt);
    PRINT_TABLE(idt);
    PRINT_TABLE(gdt);
}

static void print_x86(const struct X86Registers *regs)
{
    print_general(regs);
    print_system(regs);
    print_segments(regs);
}

static void print_aarch64_system(const struct microvmi_aarch64_registers *regs)
{
    PRINT_REGISTER(pc);
    PRINT_REGISTER(pstate);
    PRINT_REGISTER(sp_el0);
    PRINT_REGISTER(sp_el1);
    PRINT_REGISTER(ttbr0_el1);
    PRINT_REGISTER(ttbr1_el1);
    PRINT_REGISTER(tcr_el1);
    PRINT_REGISTER(sctlr_el1);
    PRINT_REGISTER(mair_el1);
    PRINT_REGISTER(vbar_el1);
    PRINT_REGISTER(esr_el1);
    PRINT_REGISTER(far_el1);
    PRINT_REGISTER(elr_el1);
    PRINT_REGISTER(spsr_el1);
    PRINT_REGISTER(tpidr_el0);
    PRINT_REGISTER(tpidr_el1);
    PRINT_REGISTER(contextidr_el1);
    PRINT_REGISTER(midr_el1);
    PRINT_REGISTER(id_aa64mmfr0_el1);
}

static void print_aarch64(const struct microvmi_aarch64_registers *regs)
{
    char name[8];
    uint64_t x[31]; /* the first members are x0 to x30 */
    int number;

    memcpy(x, regs, sizeof(x));
    for (number = 0; number < 31; number++) {
        snprintf(name, sizeof(name), "x%d", number);
        print_register(name, x[number]);
    }
    print_aarch64_system(regs);
}

static bool print_vcpu(void *vm, uint16_t vcpu)
{
    struct Registers registers;

    if (!microvmi_read_registers(vm, vcpu, &registers)) {
        fprintf(stderr, PROGRAM ": cannot read the registers of vCPU %u: %s\n", vcpu, microvmi_last_error());
        return false;
    }
    if (registers.tag != X86 && registers.tag != MICROVMI_REGISTERS_AARCH64) {
        fprintf(stderr, PROGRAM ": vCPU %u has an architecture this program does not know\n", vcpu);
        return false;
    }
    printf("%-14s %u\n", "vcpu", vcpu);
    if (registers.tag == X86) {
        print_x86(&registers.x86);
    } else {
        print_aarch64(&registers.aarch64);
    }
    return true;
}

static bool print_vcpus(void *vm, long wanted)
{
    uint16_t count, vcpu;

    if (!microvmi_get_vcpu_count(vm, &count)) {
        fprintf(stderr, PROGRAM ": cannot get the number of vCPUs: %s\n", microvmi_last_error());
        return false;
    }
    if (wanted >= count) {
        fprintf(stderr, PROGRAM ": no vCPU %ld: the machine has %u, numbered from 0\n", wanted, count);
        return false;
    }
    if (wanted != ALL_VCPUS) {
        return print_vcpu(vm, (uint16_t)wanted);
    }
    for (vcpu = 0; vcpu < count; vcpu++) {
        if (vcpu > 0) {
            putchar('\n');
        }
        if (!print_vcpu(vm, vcpu)) {
            return false;
        }
    }
    return true;
}

static int run(const char *target, long wanted)
{
    void *vm = open_target(PROGRAM, target);
    bool ok;

    if (vm == NULL) {
        return 1;
    }
    pause_if_possible(PROGRAM, vm);
    ok = print_vcpus(vm, wanted);
    microvmi_destroy(vm); /* the machine runs again */
    if (fflush(stdout) != 0) {
        fprintf(stderr, PROGRAM ": standard output: %s\n", strerror(errno));
        return 1;
    }
    return !ok;
}

static int usage(FILE *stream, int status)
{
    fputs("usage: regs-dump TARGET [VCPU]\n"
          "Print the registers of all vCPUs of a machine, or of vCPU number VCPU (from 0).\n" TARGET_HELP,
          stream);
    return status;
}

int main(int argc, char **argv)
{
    long wanted = ALL_VCPUS;
    int status;

    if (argc == 2 && (strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0)) {
        return usage(stdout, 0);
    }
    if (argc != 2 && argc != 3) {
        return usage(stderr, 2);
    }
    if (argc == 3) {
        char *end;

        errno = 0;
        wanted = strtol(argv[2], &end, 10);
        if (end == argv[2] || *end != '\0' || errno != 0 || wanted < 0 || wanted > UINT16_MAX) {
            fprintf(stderr, PROGRAM ": %s: not the number of a vCPU\n", argv[2]);
            return usage(stderr, 2);
        }
    }
    block_ending_signals(); /* it takes a moment: an end that was asked for comes right after it */
    status = run(argv[1], wanted);
    return ending_signal() != 0 ? 128 + ending_signal() : status;
}
