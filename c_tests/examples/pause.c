/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pause: stop a machine for a while.
 *
 *   cc -o pause pause.c -lmicrovmi
 *   ./pause -t 10 debian
 *
 * Stops all vCPUs, waits for Enter or for SECONDS, and lets them run again, after Ctrl-C, SIGTERM and SIGHUP as well. With --keep it ends
 * as soon as the wait is over without resuming or closing anything: the library itself lets a machine run again when
 * the process that paused it exits.
 */
#define _POSIX_C_SOURCE 200809L

#include <getopt.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "ending.h"
#include "target.h"

#define PROGRAM "pause"
#define RELEASE_MS 5000 /* who ends a program by a signal does not wait long */

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Wait for Enter (or the end of standard input), for `seconds` if that is not negative, or for a signal. */
static void wait_while_paused(double seconds)
{
    bool timed = seconds >= 0;
    struct pollfd files[] = {{.fd = ending_descriptor(), .events = POLLIN},
                             {.fd = timed ? -1 : STDIN_FILENO, .events = POLLIN}};
    double end = now() + seconds, left;
    char key = 0;

    while (key != '\n' && ending_signal() == 0) {
        left = timed ? end - now() : 1;
        if (left <= 0 || poll(files, 2, timed && left < 1000 ? (int)(left * 1000) + 1 : 1000 * 1000) < 0) {
            break;
        }
        if (files[1].revents != 0 && read(STDIN_FILENO, &key, 1) <= 0) {
            break;
        }
    }
    close(files[0].fd);
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
    if (ending_signal() != 0) {
        if (!microvmi_release_all(RELEASE_MS)) {
            fprintf(stderr, PROGRAM ": %s stays paused: %s\n", target, microvmi_last_error());
        }
        microvmi_destroy(vm);
        return 128 + ending_signal();
    }
    if (keep) {
        printf("leaving; the library resumes it\n");
        return 0;
    }
    if (microvmi_resume(vm)) {
        printf("running\n");
    } else {
        fprintf(stderr, PROGRAM ": cannot resume %s: %s\n", target, microvmi_last_error());
        status = 1;
    }
    microvmi_destroy(vm);
    return status;
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
    block_ending_signals();
    return run(argv[optind], seconds, keep);
}
