/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starts the watcher; see watching.h. A child that a program is executed in is seen by every wait() of the host, whatever it
 * was made with: the kernel has its end told by SIGCHLD again. So it is a grandchild, which nobody here is the parent of:
 * the child between ends as soon as the program runs, and tells nobody but us.
 */
#include <pthread.h>
#include <stdint.h>

#include "watching.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MVI_WATCHER_STACK ((size_t)64 << 10)
#define MVI_WATCHER_DESCRIPTORS 4

/* What we and both children share: their memory is ours, and each waits for the next. */
struct mvi_watcher_plan {
    const char *program;
    const char *const *words;
    int descriptors[MVI_WATCHER_DESCRIPTORS]; /* what is to be 0, 1 and so on; -1: nothing */
    char *stack;                              /* of the second */
    volatile int pid;
    volatile int failed; /* a number of errno */
};

/*
 * The second child. No handler of the host's may run in it, as it would in the host's memory; sigaction() may be another's
 * than the C library's, which takes note of it there. Zeros are SIG_DFL.
 */
static int mvi_watcher_run(void *argument)
{
    struct mvi_watcher_plan *start = argument;
    const char usual[sizeof(struct sigaction)] = {0};
    char *const nothing[] = {NULL};
    int number, held[MVI_WATCHER_DESCRIPTORS];
    sigset_t none;

    for (number = 1; number < NSIG; number++)
        (void)syscall(SYS_rt_sigaction, number, usual, NULL, NSIG / 8);
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)setsid();                                              /* Ctrl-C is not for it */
    for (number = 0; number < MVI_WATCHER_DESCRIPTORS; number++) /* none is where another is to be */
        if ((held[number] = fcntl(start->descriptors[number], F_DUPFD_CLOEXEC, MVI_WATCHER_DESCRIPTORS)) < 0 &&
            start->descriptors[number] >= 0)
            _exit(start->failed = errno);
    for (number = 0; number < MVI_WATCHER_DESCRIPTORS; number++) {
        (void)close(number);
        if (held[number] >= 0 && dup2(held[number], number) < 0)
            _exit(start->failed = errno);
    }
    (void)execve(start->program, (char *const *)start->words, nothing);
    _exit(start->failed = errno);
}

/* The first child: has the second one started, and looks whether it was. */
static int mvi_watcher_begin(void *argument)
{
    struct mvi_watcher_plan *start = argument;
    int pid = clone(mvi_watcher_run, start->stack + MVI_WATCHER_STACK, CLONE_VM | CLONE_VFORK | SIGCHLD, (void *)start);

    if (pid < 0)
        start->failed = errno;
    else if (start->failed != 0)
        (void)waitpid(pid, NULL, __WALL);
    else if (waitpid(pid, NULL, __WALL | WNOHANG) != 0)
        start->failed = EPERM; /* something ended it: a filter of system calls */
    start->pid = pid;
    _exit(0);
}

static int mvi_watcher_between(struct mvi_watcher_plan *start, char *stack)
{
    sigset_t all, before;
    int pid, failed;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid = clone(mvi_watcher_begin, stack + MVI_WATCHER_STACK, CLONE_VM | CLONE_VFORK, (void *)start);
    failed = pid < 0 ? errno : 0;
    while (pid > 0 && waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
        ;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed == 0 && start->pid <= 0 && start->failed == 0)
        return EPERM;
    return failed != 0 ? failed : start->failed;
}

int32_t mvi_watcher_start(const char *program, const char *job, const char *process, const char *address, int32_t word,
                          int32_t door, int32_t other, int32_t *child)
{
    const char *const words[] = {"microvmi-watcher", job, process, address, NULL};
    int own = (int)syscall(SYS_pidfd_open, getpid(), 0);
    struct mvi_watcher_plan start = {program, words, {word, door, own, other}, NULL, 0, 0};
    char *stacks = mmap(NULL, 2 * MVI_WATCHER_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int failed = ENOMEM;

    if (stacks != MAP_FAILED) {
        start.stack = stacks + MVI_WATCHER_STACK;
        failed = mvi_watcher_between(&start, stacks);
        (void)munmap(stacks, 2 * MVI_WATCHER_STACK);
    }
    if (own >= 0)
        (void)close(own);
    *child = failed == 0 && waitpid(start.pid, NULL, __WALL | WNOHANG) == 0 ? start.pid : 0;
    return failed;
}

void mvi_watcher_reap(int32_t child)
{
    const struct timespec pause = {0, 1000000};
    int left = 1000;

    while (waitpid(child, NULL, __WALL | WNOHANG) == 0 && left-- > 0)
        nanosleep(&pause, NULL);
}
