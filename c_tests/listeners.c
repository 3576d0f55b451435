/* SPDX-License-Identifier: Apache-2.0 */
/*
 * listeners URI KIND NUMBER ADDRESS SIZE ACCESS ROUNDS: in each round some threads listen to one intercept of a machine, some
 * answer what others were told, and one destroys the machine in the middle. Whoever comes late is told that it is gone.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "api.h"

#define LISTENERS 3
#define ANSWERERS 2
#define ENOUGH 20
#define PATIENCE 60 /* seconds for that many events */

static void *vm;
static atomic_uint told;
static int events[2]; /* a pipe: from who listens to who answers */

static bool is_gone(const char *call)
{
    enum microvmi_error code = (enum microvmi_error)microvmi_last_error_code();

    CHECK_SAYS(code == MICROVMI_ERROR_INVALID_CONTEXT || code == MICROVMI_ERROR_TIMEOUT, "%s: %s", call,
               microvmi_last_error());
    return code == MICROVMI_ERROR_INVALID_CONTEXT;
}

static void answer(const struct microvmi_event *event)
{
    CHECK(microvmi_reply_event(vm, event, NULL) || is_gone("microvmi_reply_event"));
}

/* Answer every other event, and leave the rest to others. */
static void *listen_to_it(void *unused)
{
    struct microvmi_event event = MICROVMI_EVENT_INIT;
    bool gone = false;

    while (!gone) {
        if (!microvmi_listen(vm, 1000, &event)) {
            gone = is_gone("microvmi_listen");
        } else if (atomic_fetch_add(&told, 1) % 2 == 0) {
            answer(&event);
        } else {
            CHECK(write(events[1], &event, sizeof event) == sizeof event);
        }
    }
    return unused;
}

static void *answer_others(void *unused)
{
    struct microvmi_event event;

    while (read(events[0], &event, sizeof event) == sizeof event)
        answer(&event);
    return unused;
}

static void wait_for_events(void)
{
    const struct timespec moment = {0, 1000000};
    time_t end = time(NULL) + PATIENCE;

    while (atomic_load(&told) < ENOUGH) {
        CHECK_SAYS(time(NULL) < end, "%u events in %d s", atomic_load(&told), PATIENCE);
        nanosleep(&moment, NULL);
    }
}

static void play_a_round(const char *uri, const struct microvmi_intercept *intercept)
{
    pthread_t listeners[LISTENERS], answerers[ANSWERERS];
    int i;

    atomic_store(&told, 0);
    CHECK(pipe(events) == 0);
    vm = open_or_fail(uri);
    CHECK_SAYS(microvmi_toggle_intercept(vm, MICROVMI_ALL_VCPUS, intercept, true), "%s", microvmi_last_error());
    for (i = 0; i < LISTENERS; i++)
        CHECK(pthread_create(&listeners[i], NULL, listen_to_it, NULL) == 0);
    for (i = 0; i < ANSWERERS; i++)
        CHECK(pthread_create(&answerers[i], NULL, answer_others, NULL) == 0);
    wait_for_events();
    microvmi_destroy(vm);
    for (i = 0; i < LISTENERS; i++)
        CHECK(pthread_join(listeners[i], NULL) == 0);
    close(events[1]);
    for (i = 0; i < ANSWERERS; i++)
        CHECK(pthread_join(answerers[i], NULL) == 0);
    close(events[0]);
}

int main(int argc, char **argv)
{
    struct microvmi_intercept intercept = MICROVMI_INTERCEPT_INIT;
    long rounds;

    CHECK_SAYS(argc == 8, "usage: %s URI KIND NUMBER ADDRESS SIZE ACCESS ROUNDS", argv[0]);
    intercept.kind = (uint32_t)strtoul(argv[2], NULL, 0);
    intercept.number = (uint32_t)strtoul(argv[3], NULL, 0);
    intercept.address = strtoull(argv[4], NULL, 0);
    intercept.size = strtoull(argv[5], NULL, 0);
    intercept.access = (uint32_t)strtoul(argv[6], NULL, 0);
    alarm(150);
    for (rounds = strtol(argv[7], NULL, 0); rounds > 0; rounds--)
        play_a_round(argv[1], &intercept);
    return 0;
}
