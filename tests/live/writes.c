/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest's program that has its kernel write registers, on the vCPU that it is told, and counts what became of that in a
 * page which is found from outside by its first words. It does `count` rounds of `mode`, and waits for more.
 */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum mode {
    WAIT,
    GS_BASE,     /* MSR 0xc0000102, another value in each round */
    TIME_STAMPS, /* CR4.TSD: set in one round, cleared in the next */
    BREAKPOINT,
    CALL,
    LOAD /* a module whose first function writes CR4 and the MSR, and fails */
};

struct page {
    char mark[32];
    volatile uint64_t mode, count, done;
    volatile uint64_t value;   /* that was read at last */
    volatile uint64_t refused; /* writes after which the register had another value */
    volatile uint64_t faults, traps, trapped_at;
    volatile uint64_t loads; /* that got as far as that function */
};

static struct page *page;
static sigjmp_buf behind;

static void on_fault(int signal)
{
    page->faults++;
    siglongjmp(behind, 1);
}

static void on_trap(int signal, siginfo_t *info, void *context)
{
    page->traps++;
    page->trapped_at = ((uint64_t *)context)[21]; /* rip, of the struct ucontext of this processor */
}

static void write_gs_base(void)
{
    uint64_t value = (page->done + 1) << 12, found = 0;

    syscall(SYS_arch_prctl, ARCH_SET_GS, value);
    syscall(SYS_arch_prctl, ARCH_GET_GS, &found);
    page->value = found;
    page->refused += found != value;
}

/* Whether the kernel's word is the processor's. */
static void write_time_stamps(void)
{
    int wanted = page->done % 2 == 0, faulted = 1;

    prctl(PR_SET_TSC, wanted ? PR_TSC_SIGSEGV : PR_TSC_ENABLE);
    if (sigsetjmp(behind, 1) == 0) {
        __asm__ volatile("rdtsc" ::: "eax", "edx");
        faulted = 0;
    }
    page->refused += faulted != wanted;
}

static void load(void)
{
    int file = open("/module", O_RDONLY | O_CLOEXEC);

    page->loads += syscall(SYS_finit_module, file, "", 0) != 0 && errno == ENODEV;
    close(file);
}

static void round_of(uint64_t mode)
{
    if (mode == GS_BASE)
        write_gs_base();
    else if (mode == TIME_STAMPS)
        write_time_stamps();
    else if (mode == BREAKPOINT)
        __asm__ volatile("int3");
    else if (mode == LOAD)
        load();
    else
        syscall(SYS_getppid);
    page->done++;
}

static void stay_on(int vcpu)
{
    cpu_set_t only;

    CPU_ZERO(&only);
    CPU_SET(vcpu, &only);
    sched_setaffinity(0, sizeof only, &only);
}

int main(int count, char **words)
{
    struct sigaction trap = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO}, fault = {.sa_handler = on_fault};
    struct timespec rest = {.tv_nsec = 20000000};

    stay_on(atoi(words[1]));
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    mlockall(MCL_CURRENT);
    snprintf(page->mark, sizeof page->mark, "%s of the %s on %s", "page", "writer", words[1]);
    sigaction(SIGTRAP, &trap, NULL);
    sigaction(SIGSEGV, &fault, NULL);
    for (;;) {
        while (page->mode == WAIT)
            nanosleep(&rest, NULL);
        while (page->count > 0) {
            round_of(page->mode);
            page->count--;
        }
        page->mode = WAIT;
    }
}
