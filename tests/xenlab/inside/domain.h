/* SPDX-License-Identifier: Apache-2.0 */
/* What the checks in dom0 share: opening a domain, reading what it shows, waiting, telling figures. */
#ifndef XENLAB_DOMAIN_H
#define XENLAB_DOMAIN_H

#include <time.h>

#include "api.h"
#include "layout.h"

#define PAGE 4096u
#define TINY "vmi://xen/?vm_name=tiny"
#define LINUX "vmi://xen/?vm_name=linux"
#define START_SECONDS 20.0 /* a tiny guest has filled its pattern by then, even where the processor is emulated */

#define WORKS(call) CHECK_SAYS(call, "%s: %s", #call, microvmi_last_error())
#define FAILS_WITH(code, call) \
    CHECK_SAYS(!(call) && microvmi_last_error_code() == (code), "%s: not error %d but %d, %s", #call, (int)(code), \
               (int)microvmi_last_error_code(), microvmi_last_error())

static inline double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static inline void sleep_ms(long milliseconds)
{
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};

    nanosleep(&time, NULL);
}

static inline uint64_t read64(void *vm, uint64_t address)
{
    uint64_t value = 0;

    WORKS(microvmi_read_physical(vm, address, (uint8_t *)&value, sizeof(value), NULL));
    return value;
}

/* Whether the guest counts on within the time. */
static inline bool counts(void *vm, double seconds)
{
    uint64_t start = read64(vm, COUNTER_ADDRESS);
    double end = now() + seconds;

    while (read64(vm, COUNTER_ADDRESS) == start) {
        if (now() > end)
            return false;
        sleep_ms(5);
    }
    return true;
}

static inline void *open_domain(const char *uri)
{
    const char *error = NULL;
    void *vm = microvmi_open(uri, &error);

    CHECK_SAYS(vm != NULL, "%s: %s", uri, error);
    return vm;
}

/* The tiny guest, when it goes round. */
static inline void *open_tiny(void)
{
    void *vm = open_domain(TINY);

    CHECK_SAYS(counts(vm, START_SECONDS), "the tiny guest does not count");
    return vm;
}

static inline struct microvmi_intercept intercept_of(uint32_t kind, uint32_t number)
{
    struct microvmi_intercept intercept = MICROVMI_INTERCEPT_INIT;

    intercept.kind = kind;
    intercept.number = number;
    return intercept;
}

static inline void watch(void *vm, uint32_t kind, uint32_t number)
{
    struct microvmi_intercept intercept = intercept_of(kind, number);

    WORKS(microvmi_toggle_intercept(vm, MICROVMI_ALL_VCPUS, &intercept, true));
}

static inline void unwatch(void *vm, uint32_t kind, uint32_t number)
{
    struct microvmi_intercept intercept = intercept_of(kind, number);

    WORKS(microvmi_toggle_intercept(vm, MICROVMI_ALL_VCPUS, &intercept, false));
}

static inline struct microvmi_event next_event(void *vm)
{
    struct microvmi_event event = MICROVMI_EVENT_INIT;

    WORKS(microvmi_listen(vm, 10000, &event));
    return event;
}

#endif
