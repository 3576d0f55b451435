/* SPDX-License-Identifier: Apache-2.0 */
/* Whose virtual addresses the example programs mean: those of a vCPU, or of page tables that the command line names. */
#ifndef EXAMPLES_SPACE_H
#define EXAMPLES_SPACE_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libmicrovmi.h>

#define SPACE_OPTIONS "v:b:m:"
#define SPACE_HELP \
    "  -v VCPU     virtual addresses as vCPU number VCPU (from 0) has them now; it is 0 if nothing else is said\n" \
    "  -b BASE     those of page tables at BASE (a CR3), for machines whose registers cannot be read\n" \
    "  -m MODE     with -b: how the tables are read, one of 32, pae, 4 (levels, the default) and 5\n"

struct wanted_space {
    uint16_t vcpu;
    bool by_base;
    uint64_t base;
    uint32_t paging;
};

/* By enum microvmi_paging. */
static const char *const paging_names[] = {"off", "32", "pae", "4", "5", "aarch64"};

static inline const char *paging_name(uint32_t paging)
{
    return paging < sizeof(paging_names) / sizeof(paging_names[0]) ? paging_names[paging] : "a new one";
}

/* A number, in hexadecimal with 0x before it, that is at most `limit`. False if the text is none. */
static inline bool parse_number(const char *text, uint64_t limit, uint64_t *number)
{
    char *end;

    errno = 0;
    *number = strtoull(text, &end, 0);
    return end != text && *end == '\0' && errno == 0 && *number <= limit && strchr(text, '-') == NULL;
}

static inline bool parse_paging(const char *name, uint32_t *paging)
{
    uint32_t number;

    for (number = MICROVMI_PAGING_X86_32; number <= MICROVMI_PAGING_X86_5_LEVELS; number++) {
        if (strcmp(name, paging_names[number]) == 0) {
            *paging = number;
            return true;
        }
    }
    return false;
}

/* Take one of SPACE_OPTIONS. False if it is none of them, or its argument makes no sense, which is told. */
static inline bool take_space_option(const char *program, int option, const char *argument, struct wanted_space *wanted)
{
    uint64_t number = 0;
    bool ok = false;

    if (option == 'v') {
        ok = parse_number(argument, UINT16_MAX, &number);
        wanted->vcpu = (uint16_t)number;
    } else if (option == 'b') {
        ok = wanted->by_base = parse_number(argument, UINT64_MAX, &wanted->base);
    } else if (option == 'm') {
        ok = parse_paging(argument, &wanted->paging);
    } else {
        return false;
    }
    if (!ok) {
        fprintf(stderr, "%s: -%c %s: not what belongs there\n", program, option, argument);
    }
    return ok;
}

/* Make the address space. False after the reason was printed. */
static inline bool make_space(const char *program, void *vm, const struct wanted_space *wanted,
                              struct microvmi_address_space *space)
{
    static const struct microvmi_address_space empty = MICROVMI_ADDRESS_SPACE_INIT;

    *space = empty;
    if (wanted->by_base) {
        space->paging = wanted->paging != 0 ? wanted->paging : (uint32_t)MICROVMI_PAGING_X86_4_LEVELS;
        space->base = wanted->base;
        return true;
    }
    if (microvmi_get_address_space(vm, wanted->vcpu, space)) {
        return true;
    }
    fprintf(stderr, "%s: no virtual addresses of vCPU %u: %s (-b BASE names page tables)\n", program, wanted->vcpu,
            microvmi_last_error());
    return false;
}

#endif
