/* SPDX-License-Identifier: Apache-2.0 */
/*
 * race: 16 threads make the first call at the same moment; three of four open a machine, the others ask for the
 * version, the error of their thread, or something impossible.
 */
#include <pthread.h>

#include "api.h"

#define THREADS 16

static pthread_barrier_t barrier;

static void open_and_read(uintptr_t number)
{
    void *vm = open_or_fail(FAKE);

    check_frame(vm, number);
    microvmi_destroy(vm);
}

static void call_without_machine(uintptr_t number)
{
    const char *error = NULL;

    CHECK(microvmi_version()[0] != '\0' && microvmi_build_info()[0] != '\0');
    CHECK(microvmi_last_error()[0] == '\0' && microvmi_last_error_code() == MICROVMI_OK);
    if (number % 8 == 3) {
        CHECK(microvmi_open("vmi://no-such-driver/", &error) == NULL && error != NULL);
        rs_cstring_free((char *)error);
    } else {
        CHECK(!microvmi_pause((void *)number));
    }
    CHECK(microvmi_last_error_code() != MICROVMI_OK && microvmi_last_error()[0] != '\0');
}

static void *run(void *argument)
{
    uintptr_t number = (uintptr_t)argument;

    pthread_barrier_wait(&barrier);
    if (number % 4 == 3) {
        call_without_machine(number);
    } else {
        open_and_read(number);
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    uintptr_t i;

    CHECK(pthread_barrier_init(&barrier, NULL, THREADS) == 0);
    for (i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, run, (void *)i) == 0);
    }
    for (i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    return 0;
}
