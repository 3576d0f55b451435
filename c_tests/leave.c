/* SPDX-License-Identifier: Apache-2.0 */
/*
 * leave HOW URI [CODE]: pause a machine, then leave it open and end the process: `return` from main, `exit` from a
 * function, exit() from another `thread`, return while others are `busy` in the library, or `abort` by a signal.
 * leave early URI CODE MICROSECONDS: return that long after another thread began the first call. Returns CODE.
 */
#include <pthread.h>

#include "api.h"

static void *end_process(void *code)
{
    exit((int)(intptr_t)code);
}

static void end_from_a_thread(int code)
{
    pthread_t thread;

    CHECK(pthread_create(&thread, NULL, end_process, (void *)(intptr_t)code) == 0);
    pthread_join(thread, NULL);
}

static void *keep_reading(void *vm)
{
    uint8_t buffer[3 * PAGE_SIZE];

    for (;;) {
        (void)microvmi_read_physical(vm, 0, buffer, sizeof(buffer), NULL);
    }
    return NULL;
}

static void start_readers(void *vm)
{
    pthread_t thread;
    int i;

    for (i = 0; i < 4; i++) {
        CHECK(pthread_create(&thread, NULL, keep_reading, vm) == 0);
    }
    usleep(20 * 1000);
}

static void *open_machine(void *uri)
{
    (void)microvmi_open(uri, NULL);
    return NULL;
}

static int leave_early(char *uri, int code, int microseconds)
{
    pthread_t thread;

    CHECK(pthread_create(&thread, NULL, open_machine, uri) == 0);
    usleep((useconds_t)microseconds);
    return code;
}

int main(int argc, char **argv)
{
    int code = argc >= 4 ? atoi(argv[3]) : 0;
    void *vm;

    alarm(20);
    CHECK_SAYS(argc >= 3, "usage: leave return|exit|thread|busy|abort|early URI [CODE [MICROSECONDS]]");
    if (strcmp(argv[1], "early") == 0 && argc == 5) {
        return leave_early(argv[2], code, atoi(argv[4]));
    }
    vm = open_or_fail(argv[2]);
    CHECK_SAYS(microvmi_pause(vm), "pause: %s", microvmi_last_error());
    if (strcmp(argv[1], "exit") == 0) {
        end_process((void *)(intptr_t)code);
    } else if (strcmp(argv[1], "thread") == 0) {
        end_from_a_thread(code);
    } else if (strcmp(argv[1], "busy") == 0) {
        start_readers(vm);
    } else if (strcmp(argv[1], "abort") == 0) {
        abort();
    }
    return code;
}
