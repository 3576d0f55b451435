/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ending by a signal. A signal that ends the program at once would leave a machine paused, and a handler may not call
 * the library. So the signals are blocked before anything else, in all threads that come, and taken when the program
 * looks for them; it then leaves the machine as it was found, like at any other end. So is what a reader of a pipe who goes
 * does to a program that writes there (SIGPIPE).
 */
#ifndef EXAMPLES_ENDING_H
#define EXAMPLES_ENDING_H

#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>

static sigset_t ending_signals;

/* Block what ends a program. What it was started to ignore, as nohup does with SIGHUP, stays ignored. */
static inline void block_ending_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};
    struct sigaction action;
    size_t i;

    sigemptyset(&ending_signals);
    for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        if (sigaction(numbers[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN) {
            sigaddset(&ending_signals, numbers[i]);
        }
    }
    sigprocmask(SIG_BLOCK, &ending_signals, NULL);
}

/* The signal that asked for an end so far, or 0. Does not wait. */
static inline int ending_signal(void)
{
    static const struct timespec now;
    static int taken;
    int number;

    if (taken == 0 && (number = sigtimedwait(&ending_signals, NULL, &now)) > 0) {
        taken = number;
    }
    return taken;
}

/* A descriptor for poll(): it can be read when ending_signal() has something to tell. -1 if there is none. */
static inline int ending_descriptor(void)
{
    return signalfd(-1, &ending_signals, SFD_CLOEXEC);
}

#endif
