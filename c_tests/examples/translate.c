/* SPDX-License-Identifier: Apache-2.0 */
/*
 * translate: where virtual addresses of a guest lie in its physical memory.
 *
 *   cc -o translate translate.c -lmicrovmi
 *   ./translate debian 0xffffffff81000000
 *
 * One line an address: the physical address, the size of the page, what may be done with it; or why there is none, with
 * the entry of the page tables that says so. The machine is paused meanwhile if its driver can, so that the tables are
 * those of the registers.
 */
#define _POSIX_C_SOURCE 200809L

#include <inttypes.h>
#include <unistd.h>

#include "ending.h"
#include "space.h"
#include "target.h"

#define PROGRAM "translate"

static const char *why(uint32_t failure)
{
    static const char *const reasons[] = {"", "not present", "reserved bits", "a table outside of memory",
                                          "not canonical"};

    return failure < sizeof(reasons) / sizeof(reasons[0]) ? reasons[failure] : "a new reason";
}

static void print_page(const struct microvmi_translation *told)
{
    static const char letters[] = "rwx.rwx";
    char rights[8] = "---:---";
    int bit;

    for (bit = 0; bit < 7; bit++) {
        if (letters[bit] != '.' && (told->rights >> bit & 1) != 0) {
            rights[bit] = letters[bit];
        }
    }
    printf(" 0x%016" PRIx64 "  page of %" PRIu64 " KiB  kernel:user %s\n", told->physical_address,
           told->page_size / 1024, rights);
}

/* One line about one address. False if it could not be looked up at all. */
static bool print_translation(void *vm, const struct microvmi_address_space *space, uint64_t address)
{
    struct microvmi_translation told = MICROVMI_TRANSLATION_INIT;
    bool there = microvmi_translate_address(vm, space, address, &told);

    if (!there && microvmi_last_error_code() != MICROVMI_ERROR_NOT_MAPPED) {
        fprintf(stderr, PROGRAM ": 0x%016" PRIx64 ": %s\n", address, microvmi_last_error());
        return false;
    }
    printf("0x%016" PRIx64, address);
    if (there) {
        print_page(&told);
    } else if (told.level == 0) {
        printf(" %s\n", why(told.failure));
    } else {
        printf(" %s: level %u, entry 0x%" PRIx64 " at 0x%" PRIx64 "\n", why(told.failure), told.level, told.entry,
               told.entry_address);
    }
    return true;
}

static int run(const char *target, const struct wanted_space *wanted, char **addresses, int count)
{
    void *vm = open_target(PROGRAM, target);
    struct microvmi_address_space space;
    uint64_t address;
    bool ok;
    int i;

    if (vm == NULL) {
        return 1;
    }
    pause_if_possible(PROGRAM, vm);
    ok = make_space(PROGRAM, vm, wanted, &space);
    if (ok) {
        printf("paging %s, base 0x%" PRIx64 "\n", paging_name(space.paging), space.base);
    }
    for (i = 0; ok && i < count; i++) {
        ok = parse_number(addresses[i], UINT64_MAX, &address) && print_translation(vm, &space, address);
    }
    microvmi_destroy(vm); /* the machine runs again */
    if (fflush(stdout) != 0) {
        perror(PROGRAM ": standard output");
        return 1;
    }
    return !ok;
}

static int usage(FILE *stream, int status)
{
    fputs("usage: translate [-v VCPU | -b BASE [-m MODE]] TARGET ADDRESS...\n"
          "Print where virtual addresses lie in physical memory. Numbers are hexadecimal with 0x before "
          "them.\n" SPACE_HELP TARGET_HELP,
          stream);
    return status;
}

int main(int argc, char **argv)
{
    struct wanted_space wanted = {0, false, 0, 0};
    uint64_t number;
    int option, i, status;

    while ((option = getopt(argc, argv, SPACE_OPTIONS "h")) != -1) {
        if (option == 'h') {
            return usage(stdout, 0);
        }
        if (!take_space_option(PROGRAM, option, optarg, &wanted)) {
            return usage(stderr, 2);
        }
    }
    if (argc - optind < 2) {
        return usage(stderr, 2);
    }
    for (i = optind + 1; i < argc; i++) {
        if (!parse_number(argv[i], UINT64_MAX, &number)) {
            fprintf(stderr, PROGRAM ": %s: not an address\n", argv[i]);
            return usage(stderr, 2);
        }
    }
    block_ending_signals(); /* it takes a moment: an end that was asked for comes right after it */
    status = run(argv[optind], &wanted, argv + optind + 1, argc - optind - 1);
    return ending_signal() != 0 ? 128 + ending_signal() : status;
}
