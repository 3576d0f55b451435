/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a program does with the library that does what stub_loop.c does at the stub itself.
 *
 * listen URI COUNT cr3            every change of CR3 is told and answered
 * listen URI COUNT every          every write of CR3, before it happens
 * listen URI COUNT break ADDRESS  at each stop all registers are asked for
 *
 * When the intercept is there a line "ready" is printed. Ends after COUNT events, or with none in five seconds. Prints how
 * many there were, and the nanoseconds from the first event to the last one, separated by tabs.
 */
#include <stdlib.h>
#include <string.h>

#include "bench.h"

#define PATIENCE 5000

static void *opened(const char *uri)
{
    const char *error = NULL;
    void *context = microvmi_open(uri, &error);

    CHECK_SAYS(context != NULL, "%s", error);
    return context;
}

int main(int count, char **arguments)
{
    struct microvmi_intercept intercept = MICROVMI_INTERCEPT_INIT;
    struct microvmi_event event = MICROVMI_EVENT_INIT;
    bool breaks = count > 4 && strcmp(arguments[3], "break") == 0;
    uint64_t first = 0, last = 0;
    long most, events;
    void *context;

    CHECK(count > 3);
    context = opened(arguments[1]);
    most = atol(arguments[2]);
    intercept.kind = breaks ? MICROVMI_EVENT_BREAKPOINT : MICROVMI_EVENT_CR;
    intercept.number = breaks ? 0 : 3;
    intercept.flags = strcmp(arguments[3], "every") == 0 ? MICROVMI_INTERCEPT_EVERY_WRITE : 0;
    intercept.address = breaks ? strtoull(arguments[4], NULL, 16) : 0;
    CHECK_SAYS(microvmi_toggle_intercept(context, MICROVMI_ALL_VCPUS, &intercept, true), "%s", microvmi_last_error());
    puts("ready");
    fflush(stdout);
    for (events = 0; events < most && microvmi_listen(context, PATIENCE, &event); events++) {
        struct Registers registers;

        last = now_ns();
        first = events == 0 ? last : first;
        if (breaks)
            CHECK_SAYS(microvmi_read_registers(context, event.vcpu, &registers), "%s", microvmi_last_error());
        CHECK_SAYS(microvmi_reply_event(context, &event, NULL), "%s", microvmi_last_error());
    }
    microvmi_destroy(context);
    printf("%ld\t%llu\n", events, (unsigned long long)(last - first));
    return 0;
}
