/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pause: stop a machine for a while.
 *
 *   cc -o pause pause.c -lmicrovmi
 *   ./pause -t 10 debian
 *
 * Stops all vCPUs, waits for Enter or for SECONDS, and lets them run again, after Ctrl-C as well. With --keep it ends
 * as soon as the wait is over without resuming or closing anything: the library itself lets a machine run again when
 * the process that paused it exits.
 */
#define _POSIX_C_SOURCE 200809L

#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

#include "target.h"

#define PROGRAM "pause"

static volatile sig_atomic_t interrupted; /* the signal that asks for an end, or 0 */

static void on_signal(int number)
{
    interrupted = number;
}

static void catch_signals(void)
{
    struct sigaction action;

    memset(&action, 0, sizeof(action));
    sigemptyset(&action.sa_mask);
    action.sa_handler = on_signal;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

/*
 * Wait for Enter (or the end of standard input), for `seconds` if that is not negative, or for a signal. Signals are
 * let in only while pselect() waits, so that none is missed between the test of `interrupted` and the wait.
 */
static void wait_while_paused(double seconds)
{
    struct timespec limit = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
    bool timed = seconds >= 0;
    sigset_t blocked, original;
    fd_set input;
    char key = 0;

    sigemptyset(&blocked);
    sigaddset(&blocked, SIGINT);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGHUP);
    sigprocmask(SIG_BLOCK, &blocked, &original);
    while (key != '\n' && !interrupted) {
        FD_ZERO(&input);
        FD_SET(STDIN_FILENO, &input);
        if (pselect(timed ? 0 : STDIN_FILENO + 1, timed ? NULL : &input, NULL, NULL, timed ? &limit : NULL,
                    &original) <= 0 || read(STDIN_FILENO, &key, 1) <= 0) {
            break;
        }
    }
    sigprocmask(SIG_SETMASK, &original, NULL);
}

static int run(const char *target, double seconds, bool keep)
{
    void *vm = open_target(PROGRAM, target);
    int status = 0;

    if (vm == NULL) {
        return 1;
    }
    if (!microvmi_pause(vm)) {
        fprintf(stderr, PROGRAM ": cannot pause %s: %s\n", target, microvmi_last_error());
        microvmi_destroy(vm);
        return 1;
    }
    if (seconds >= 0) {
        printf("paused for %g s\n", seconds);
    } else {
        printf("paused; press Enter to let it run\n");
    }
    fflush(stdout);
    wait_while_paused(seconds);
    if (keep) {
        printf("leaving; the library resumes it\n");
        return interrupted ? 128 + interrupted : 0;
    }
    if (microvmi_resume(vm)) {
        printf("running\n");
    } else {
        fprintf(stderr, PROGRAM ": cannot resume %s: %s\n", target, microvmi_last_error());
        status = 1;
    }
    microvmi_destroy(vm);
    return interrupted ? 128 + interrupted : status;
}

static int usage(FILE *stream, int status)
{
    fputs("usage: pause [-t SECONDS] [--keep] TARGET\n"
          "Pause a machine until Enter is pressed, then let it run.\n"
          "  -t SECONDS  wait so long instead of for Enter\n"
          "  --keep      end without a resume: the library resumes the machine when the program exits\n" TARGET_HELP,
          stream);
    return status;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"keep", no_argument, NULL, 'k'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    double seconds = -1;
    bool keep = false;
    char *end;
    int option;

    while ((option = getopt_long(argc, argv, "t:h", options, NULL)) != -1) {
        switch (option) {
        case 't':
            seconds = strtod(optarg, &end);
            if (end == optarg || *end != '\0' || !(seconds >= 0 && seconds <= 1e9)) {
                fprintf(stderr, PROGRAM ": %s: not a number of seconds\n", optarg);
                return usage(stderr, 2);
            }
            break;
        case 'k':
            keep = true;
            break;
        case 'h':
            return usage(stdout, 0);
        default:
            return usage(stderr, 2);
        }
    }
    if (argc - optind != 1) {
        return usage(stderr, 2);
    }
    catch_signals();
    return run(argv[optind], seconds, keep);
}
