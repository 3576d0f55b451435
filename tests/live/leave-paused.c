/* SPDX-License-Identifier: Apache-2.0 */
/* Pause the machine of the URI argv[1], say so, wait for a line and end by argv[2]: return, exit or thread. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libmicrovmi.h>

static void *leave(void *unused)
{
    (void)unused;
    exit(0);
}

int main(int argc, char **argv)
{
    void *vm = argc == 3 ? microvmi_open(argv[1], NULL) : NULL;
    pthread_t thread;

    if (vm == NULL || !microvmi_pause(vm)) {
        fprintf(stderr, "leave-paused: %s\n", microvmi_last_error());
        return 1;
    }
    puts("paused");
    fflush(stdout);
    if (getchar() == EOF) {
        return 1;
    }
    if (strcmp(argv[2], "exit") == 0) {
        exit(0);
    }
    if (strcmp(argv[2], "thread") == 0 && pthread_create(&thread, NULL, leave, NULL) == 0) {
        pthread_join(thread, NULL);
    }
    return 0;
}
