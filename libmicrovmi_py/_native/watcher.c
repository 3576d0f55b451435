/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program of its own: it takes back what was changed in QEMU, if the process that changed it ends without having done so,
 * by SIGKILL for instance. Started by watching.c:
 *
 *     microvmi-watcher JOB PID ADDRESS
 *
 * with what it is about, QEMU's process, and its monitor: a path, or an abstract name behind "@", or nothing. Its
 * descriptors: 0 is a socket on which the process says what has changed, a byte a word; 1 the monitor's socket in the
 * file system, if ADDRESS leads there; 2 a pidfd of the process, if the system has those; 3 what the job needs. It prints
 * nothing, and asks QEMU nothing while that process lives.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "watcher.h"

#define LOOK_NS 50000000

/* The words, which transport/watcher.py has as well. */
enum {
    DONE = WATCH_DONE,
    TAKE_OVER = '!',
    RUNS = 'R',
    STANDS = 'r',
    INTERRUPTED = 'I',
    GOES = 'i'
};

static void close_others(void)
{
    int number;

    if (syscall(SYS_close_range, WATCH_OTHERS, ~0u, 0) == 0)
        return;
    for (number = WATCH_OTHERS; number < sysconf(_SC_OPEN_MAX); number++)
        close(number);
}

/* One word; whether it is one of the last. */
static bool take(char word, struct watch_machine *machine)
{
    if (word == RUNS || word == STANDS)
        machine->runs = word == RUNS;
    if (word == INTERRUPTED || word == GOES)
        machine->interrupted = word == INTERRUPTED;
    return word == DONE || word == TAKE_OVER;
}

/* Whether all is done: false once the process has ended, or become another program, and it is not. */
static bool hear_all(struct watch_machine *machine)
{
    struct pollfd told[] = {{WATCH_WORD, POLLIN, 0},
                            {fcntl(WATCH_STARTER, F_GETFD) < 0 ? -1 : WATCH_STARTER, POLLIN, 0}};
    ssize_t size = 1;
    char word;

    do {
        /* What was said before the end counts; a child of fork() may hold it open. */
        while ((size = recv(WATCH_WORD, &word, 1, MSG_DONTWAIT)) == 1)
            if (take(word, machine))
                return word == DONE;
        if (size == 0 || told[1].revents != 0)
            return false;
    } while (poll(told, 2, -1) != 0);
    return false;
}

/* What is done while the process lives, until all is done or it has ended, and what then. */
static const struct {
    const char *name;
    bool (*wait)(struct watch_machine *machine);
    enum watch_outcome (*work)(const struct watch_machine *machine);
} jobs[] = {
    {"snapshot", hear_all, watch_snapshot},
    {"events", hear_all, watch_events},
    {"pause", hear_all, watch_pause},
    {"observe", watch_read_log, watch_observe},
};

int main(int count, char **words)
{
    const struct timespec pause = {0, LOOK_NS};
    struct watch_machine machine = {.runs = true, .interrupted = true};
    size_t job = 0;

    while (count == 4 && job < sizeof jobs / sizeof *jobs && strcmp(jobs[job].name, words[1]) != 0)
        job++;
    if (count != 4 || job == sizeof jobs / sizeof *jobs)
        return 2;
    machine.pid = words[2];
    machine.address = words[3];
    close_others();
    signal(SIGTERM, SIG_IGN); /* what ends all processes of a service at once ends the one that is watched */
    signal(SIGHUP, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    if (chdir("/") != 0 || jobs[job].wait(&machine))
        return 0;
    while (jobs[job].work(&machine) == WATCH_LATER)
        nanosleep(&pause, NULL);
    return 0;
}
