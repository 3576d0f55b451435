/* SPDX-License-Identifier: Apache-2.0 */
/*
 * regs-dump: print every register that is known of all vCPUs of a machine, or of one.
 *
 *   cc -o regs-dump regs-dump.c -lmicrovmi
 *   ./regs-dump debian 0
 *
 * One register a line, `name value`, in hexadecimal; each vCPU begins with a line `vcpu N`. A register that has no line
 * is one that the hypervisor does not tell. The machine is paused meanwhile if its driver can, so that the values belong
 * together.
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

/* Those that are known, in the order of their numbers, which is that of the header. */
static void print_state(const struct microvmi_vcpu_state *state)
{
    const char *name;
    uint32_t number;

    printf("%-16s %u\n", "vcpu", state->vcpu);
    for (number = 0; (name = microvmi_register_name(state->architecture, number)) != NULL; number++) {
        if (MICROVMI_IS_KNOWN(state, number)) {
            printf("%-16s 0x%016" PRIx64 "\n", name, state->value[number]);
        }
    }
}

static bool print_one(void *vm, uint16_t vcpu)
{
    struct microvmi_vcpu_state state = MICROVMI_VCPU_STATE_INIT;

    if (!microvmi_read_vcpu_state(vm, vcpu, &state)) {
        fprintf(stderr, PROGRAM ": cannot read the registers of vCPU %u: %s\n", vcpu, microvmi_last_error());
        return false;
    }
    print_state(&state);
    return true;
}

/* Of all vCPUs in one call. There are as many as were counted before it: a machine that is paused gets no others. */
static bool print_all(void *vm, uint16_t room)
{
    struct microvmi_vcpu_state *states = calloc(room, sizeof(*states));
    size_t count = 0, vcpu;
    bool ok;

    if (states == NULL) {
        fprintf(stderr, PROGRAM ": no memory for the registers of %u vCPUs\n", room);
        return false;
    }
    states[0].struct_size = sizeof(*states);
    ok = microvmi_read_vcpu_states(vm, states, room, &count);
    if (!ok) {
        fprintf(stderr, PROGRAM ": cannot read registers: %s\n", microvmi_last_error());
    }
    for (vcpu = 0; vcpu < count && vcpu < room; vcpu++) {
        if (vcpu > 0) {
            putchar('\n');
        }
        print_state(&states[vcpu]);
    }
    free(states);
    return ok;
}

static bool print_vcpus(void *vm, long wanted)
{
    uint16_t count;

    if (!microvmi_get_vcpu_count(vm, &count)) {
        fprintf(stderr, PROGRAM ": cannot get the number of vCPUs: %s\n", microvmi_last_error());
        return false;
    }
    if (wanted >= count) {
        fprintf(stderr, PROGRAM ": no vCPU %ld: the machine has %u, numbered from 0\n", wanted, count);
        return false;
    }
    return wanted == ALL_VCPUS ? print_all(vm, count) : print_one(vm, (uint16_t)wanted);
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
          "Print every known register of all vCPUs of a machine, or of vCPU number VCPU (from 0).\n" TARGET_HELP,
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
