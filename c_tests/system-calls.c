/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many system calls read virtual memory of a machine in another process: its own functions, which come before those of
 * libraries, count what goes through them.
 *
 * Arguments: URI, base of the page tables, the first of 257 pages that are mapped, the distance between them, and how many
 * calls a hot word takes while the machine is paused: none if pages and translations are kept, one if nothing is.
 */
#include <dlfcn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "api.h"

#define PAGES 256
#define ROUNDS 100
#define LEVELS 4

static long (*next_syscall)(long number, ...);
static ssize_t (*next_readv)(pid_t pid, const struct iovec *local, unsigned long locals, const struct iovec *remote,
                             unsigned long remotes, unsigned long flags);
static unsigned calls;

/* It takes as many arguments as the longest call has, also where fewer were given: AddressSanitizer does not like that. */
__attribute__((no_sanitize("address"))) long syscall(long number, ...)
{
    long argument[6];
    va_list rest;
    int index;

    va_start(rest, number);
    for (index = 0; index < 6; index++)
        argument[index] = va_arg(rest, long);
    va_end(rest);
    if (next_syscall == NULL) /* the first may come from what runs before main() */
        *(void **)&next_syscall = dlsym(RTLD_NEXT, "syscall");
    calls += number == SYS_pread64;
    return next_syscall(number, argument[0], argument[1], argument[2], argument[3], argument[4], argument[5]);
}

ssize_t process_vm_readv(pid_t pid, const struct iovec *local, unsigned long locals, const struct iovec *remote,
                         unsigned long remotes, unsigned long flags)
{
    if (next_readv == NULL)
        *(void **)&next_readv = dlsym(RTLD_NEXT, "process_vm_readv");
    calls++;
    return next_readv(pid, local, locals, remote, remotes, flags);
}

static unsigned counted(void)
{
    unsigned made = calls;

    calls = 0;
    return made;
}

static void reads_a_word(void *vm, const struct microvmi_address_space *space, uint64_t address, unsigned each)
{
    uint64_t done, word;
    int round;

    CHECK(microvmi_read_virtual(vm, space, address, (uint8_t *)&word, sizeof word, &done));
    CHECK(counted() > 0);
    for (round = 0; round < ROUNDS; round++)
        CHECK(microvmi_read_virtual(vm, space, address + 8, (uint8_t *)&word, sizeof word, &done) && done == 8);
    CHECK_SAYS(calls == each * ROUNDS, "%u calls for %u hot reads, not %u each", calls, ROUNDS, each);
    (void)counted();
}

/* One call for the entries of each level, if they are not known, and one for the pages. */
static void reads_pages(void *vm, const struct microvmi_address_space *space, uint64_t address, uint64_t step,
                        unsigned levels)
{
    static uint8_t pages[PAGES][4096];
    struct microvmi_read_request request[PAGES];
    int index;

    memset(request, 0, sizeof request);
    for (index = 0; index < PAGES; index++) {
        request[index].virtual_address = address + (uint64_t)index * step;
        request[index].buffer = pages[index];
        request[index].size = sizeof pages[index];
    }
    (void)counted();
    CHECK(microvmi_read_virtual_batch(vm, space, request, PAGES));
    CHECK_SAYS(calls > 0 && calls <= levels + 1, "%u calls for %u pages, %u levels to read", calls, PAGES, levels);
}

int main(int count, char **argument)
{
    struct microvmi_address_space space = MICROVMI_ADDRESS_SPACE_INIT;
    uint64_t first, step;
    unsigned each;
    void *vm;

    CHECK(count == 6);
    vm = microvmi_open(argument[1], NULL);
    CHECK(vm != NULL);
    space.paging = MICROVMI_PAGING_X86_4_LEVELS;
    space.base = strtoull(argument[2], NULL, 0);
    first = strtoull(argument[3], NULL, 0);
    step = strtoull(argument[4], NULL, 0);
    each = (unsigned)atoi(argument[5]);

    reads_pages(vm, &space, first, step, LEVELS);
    reads_pages(vm, &space, first, step, LEVELS); /* of a machine that runs nothing is kept for it */
    reads_a_word(vm, &space, first, 1);
    CHECK(microvmi_pause(vm));
    reads_pages(vm, &space, first, step, LEVELS);
    reads_pages(vm, &space, first, step, each * LEVELS);
    reads_a_word(vm, &space, first + PAGES * step, each);
    CHECK(microvmi_resume(vm));
    microvmi_destroy(vm);
    return 0;
}
