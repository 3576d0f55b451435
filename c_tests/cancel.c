/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cancel opening|reading|closing URI: a host cancels a thread that is in a call. The call ends as if nothing had been,
 * and the thread after it: Python's lock is not lost with it, and the library goes on.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "api.h"

#define SIZE (16 * PAGE_SIZE)

static const char *mode, *uri;
static void *machine;
static atomic_int step;

static void *call(void *unused)
{
    static uint8_t buffer[SIZE];

    (void)unused;
    atomic_store(&step, 1);
    if (strcmp(mode, "opening") == 0) {
        machine = microvmi_open(uri, NULL);
    } else if (strcmp(mode, "reading") == 0) {
        (void)microvmi_read_physical(machine, 0, buffer, SIZE, NULL);
    } else {
        microvmi_destroy(machine);
        machine = NULL;
    }
    atomic_store(&step, 2);
    while (true) {
        pause(); /* ends here */
    }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    void *result = NULL;
    uint8_t byte;

    CHECK_SAYS(argc == 3, "usage: cancel opening|reading|closing URI");
    alarm(60);
    mode = argv[1];
    uri = argv[2];
    if (strcmp(mode, "opening") != 0) {
        machine = open_or_fail(uri);
    }
    CHECK(pthread_create(&thread, NULL, call, NULL) == 0);
    while (atomic_load(&step) == 0) {
        usleep(100);
    }
    CHECK(pthread_cancel(thread) == 0);
    CHECK(pthread_join(thread, &result) == 0);
    CHECK_SAYS(atomic_load(&step) == 2 && result == PTHREAD_CANCELED, "the thread ended within the call");
    if (machine != NULL) {
        CHECK_SAYS(microvmi_read_physical(machine, 0, &byte, 1, NULL), "%s", microvmi_last_error());
        microvmi_destroy(machine);
    }
    microvmi_destroy(open_or_fail(uri));
    return 0;
}
