/* SPDX-License-Identifier: Apache-2.0 */
/*
 * read-virtual: find the banner of a guest's Linux kernel, "Linux version ...", at its virtual address.
 *
 *   cc -o read-virtual read-virtual.c -lmicrovmi
 *   ./read-virtual debian
 *
 * No symbols are needed, and it does not matter where the kernel was put: the processor itself knows where the kernel is
 * entered (its MSR LSTAR, the interrupt table, or VBAR_EL1), and the banner lies behind that. Prints the address and the
 * text. The machine is paused meanwhile if its driver can.
 */
#define _POSIX_C_SOURCE 200809L

#include <inttypes.h>
#include <unistd.h>

#include "ending.h"
#include "space.h"
#include "target.h"

#define PROGRAM "read-virtual"
#define BANNER "Linux version "
#define BANNER_SIZE (sizeof(BANNER) - 1)
#define LONGEST 512          /* of what is printed */
#define SEARCHED (96u << 20) /* bytes behind the entry; a kernel is smaller */
#define PIECE (1u << 20)     /* bytes that are read at once */

/* The handler of the first interrupt: its address is in pieces in a gate of 16 bytes, in 32-bit modes of 8. */
static bool first_handler(void *vm, const struct microvmi_address_space *space, uint64_t table, uint64_t *entry)
{
    bool wide = space->paging == MICROVMI_PAGING_X86_4_LEVELS || space->paging == MICROVMI_PAGING_X86_5_LEVELS;
    uint8_t gate[16] = {0};
    int i;

    if (!microvmi_read_virtual(vm, space, table, gate, wide ? 16 : 8, NULL)) {
        return false;
    }
    *entry = gate[0] | (uint64_t)gate[1] << 8 | (uint64_t)gate[6] << 16 | (uint64_t)gate[7] << 24;
    for (i = 0; wide && i < 4; i++) {
        *entry |= (uint64_t)gate[8 + i] << (32 + 8 * i);
    }
    return true;
}

/* Where a vCPU enters its kernel. False after the reason was printed. */
static bool kernel_entry(void *vm, const struct microvmi_address_space *space, uint16_t vcpu, uint64_t *entry)
{
    struct Registers registers;

    if (microvmi_read_registers(vm, vcpu, &registers)) {
        if (registers.tag == MICROVMI_REGISTERS_AARCH64) {
            *entry = registers.aarch64.vbar_el1;
            return true;
        }
        *entry = registers.x86.msr_lstar; /* 0 where nobody knows it */
        if (*entry != 0 || first_handler(vm, space, registers.x86.idt.base, entry)) {
            return true;
        }
    }
    fprintf(stderr, PROGRAM ": no way into the kernel is known: %s\n", microvmi_last_error());
    return false;
}

/* The place of the banner in a buffer, -1 if it is not in there; a format for printing is none. */
static long place_of_banner(const uint8_t *buffer, size_t size)
{
    size_t at;

    for (at = 0; at + BANNER_SIZE < size; at++) {
        if (buffer[at] == BANNER[0] && memcmp(buffer + at, BANNER, BANNER_SIZE) == 0 &&
            buffer[at + BANNER_SIZE] >= '0' && buffer[at + BANNER_SIZE] <= '9') {
            return (long)at;
        }
    }
    return -1;
}

/* Look behind `entry`, with zeros where nothing is mapped. Pieces overlap, so that no banner is cut. 0 if there is none. */
static uint64_t find_banner(void *vm, const struct microvmi_address_space *space, uint64_t entry)
{
    static uint8_t buffer[PIECE + BANNER_SIZE + 1];
    uint64_t offset;

    for (offset = 0; offset < SEARCHED && ending_signal() == 0; offset += PIECE) {
        long place;

        if (!microvmi_read_virtual_padded(vm, space, entry + offset, buffer, sizeof(buffer), NULL)) {
            fprintf(stderr, PROGRAM ": 0x%016" PRIx64 ": %s\n", entry + offset, microvmi_last_error());
            return 0;
        }
        place = place_of_banner(buffer, sizeof(buffer));
        if (place >= 0) {
            return entry + offset + (uint64_t)place;
        }
    }
    return 0;
}

/* Print what is at an address, up to the end of the line. */
static void print_line(void *vm, const struct microvmi_address_space *space, uint64_t address)
{
    uint8_t text[LONGEST];
    uint64_t length = 0, i;

    microvmi_read_virtual(vm, space, address, text, sizeof(text), &length); /* what is there will do */
    printf("0x%016" PRIx64 " ", address);
    for (i = 0; i < length && text[i] >= ' ' && text[i] <= '~'; i++) {
        putchar(text[i]);
    }
    putchar('\n');
}

/*
 * A kernel that keeps its tables from its processes (KPTI) may have been stopped on the other ones, of a process, which
 * have the way into the kernel and not the kernel.
 */
static bool print_banner(void *vm, struct microvmi_address_space *space, uint64_t entry)
{
    uint64_t address = find_banner(vm, space, entry);

    if (address == 0 && microvmi_get_twin_address_space(vm, space, space)) {
        address = find_banner(vm, space, entry);
    }
    if (address == 0) {
        fprintf(stderr, PROGRAM ": no banner of a kernel behind 0x%016" PRIx64 "\n", entry);
        return false;
    }
    print_line(vm, space, address);
    return true;
}

static int run(const char *target, const struct wanted_space *wanted, const char *from)
{
    void *vm = open_target(PROGRAM, target);
    struct microvmi_address_space space;
    uint64_t entry = 0;
    bool ok;

    if (vm == NULL) {
        return 1;
    }
    pause_if_possible(PROGRAM, vm);
    ok = make_space(PROGRAM, vm, wanted, &space) &&
         (from != NULL ? parse_number(from, UINT64_MAX, &entry) : kernel_entry(vm, &space, wanted->vcpu, &entry)) &&
         print_banner(vm, &space, entry);
    microvmi_destroy(vm); /* the machine runs again */
    if (fflush(stdout) != 0) {
        perror(PROGRAM ": standard output");
        return 1;
    }
    return !ok;
}

static int usage(FILE *stream, int status)
{
    fputs("usage: read-virtual [-v VCPU | -b BASE [-m MODE]] TARGET [ADDRESS]\n"
          "Print the banner of a Linux kernel and its virtual address. It is looked for from ADDRESS on; if that is "
          "left\n"
          "out, from where the processor enters the kernel. Numbers are hexadecimal with 0x before them.\n" SPACE_HELP
              TARGET_HELP,
          stream);
    return status;
}

int main(int argc, char **argv)
{
    struct wanted_space wanted = {0, false, 0, 0};
    uint64_t number;
    int option, status;

    while ((option = getopt(argc, argv, SPACE_OPTIONS "h")) != -1) {
        if (option == 'h') {
            return usage(stdout, 0);
        }
        if (!take_space_option(PROGRAM, option, optarg, &wanted)) {
            return usage(stderr, 2);
        }
    }
    if (argc - optind != 1 && argc - optind != 2) {
        return usage(stderr, 2);
    }
    if (argc - optind == 2 && !parse_number(argv[optind + 1], UINT64_MAX, &number)) {
        fprintf(stderr, PROGRAM ": %s: not an address\n", argv[optind + 1]);
        return usage(stderr, 2);
    }
    block_ending_signals(); /* it takes a moment: an end that was asked for comes right after it */
    status = run(argv[optind], &wanted, argv[optind + 1]);
    return ending_signal() != 0 ? 128 + ending_signal() : status;
}
