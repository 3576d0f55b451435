/* SPDX-License-Identifier: Apache-2.0 */
/* Writes of control registers and MSRs are told with their values, can be denied, and can change registers. */
#include "domain.h"

#define EVENTS 20

/* The guest writes the two roots in turn: each event goes on where the one before ended. */
static void check_cr3(void *vm)
{
    uint64_t before = 0;
    int i;

    watch(vm, MICROVMI_EVENT_CR, 3);
    for (i = 0; i < EVENTS; i++) {
        struct microvmi_event event = next_event(vm);

        CHECK(event.kind == MICROVMI_EVENT_CR && event.number == 3 && event.vcpu == 0);
        CHECK(event.new_value == TABLES_ADDRESS || event.new_value == OTHER_ROOT_ADDRESS);
        CHECK(event.old_value + event.new_value == TABLES_ADDRESS + OTHER_ROOT_ADDRESS);
        CHECK(before == 0 || event.old_value == before);
        before = event.new_value;
        WORKS(microvmi_reply_event(vm, &event, NULL));
        FAILS_WITH(MICROVMI_ERROR_INVALID_ARGUMENT, microvmi_reply_event(vm, &event, NULL));
    }
    unwatch(vm, MICROVMI_EVENT_CR, 3);
}

/* One bit is flipped each round. */
static void check_flips(void *vm, uint32_t number, uint64_t bit)
{
    int i;

    watch(vm, MICROVMI_EVENT_CR, number);
    for (i = 0; i < EVENTS; i++) {
        struct microvmi_event event = next_event(vm);

        CHECK(event.kind == MICROVMI_EVENT_CR && event.number == number);
        CHECK_SAYS((event.old_value ^ event.new_value) == bit, "cr%" PRIu32 " %#" PRIx64 " -> %#" PRIx64, number,
                   event.old_value, event.new_value);
        WORKS(microvmi_reply_event(vm, &event, NULL));
    }
    unwatch(vm, MICROVMI_EVENT_CR, number);
}

/* While an event is open the guest stands still: what is written is what it counted to. */
static void check_msr(void *vm)
{
    int i;

    watch(vm, MICROVMI_EVENT_MSR, MSR_SYSENTER_CS);
    for (i = 0; i < EVENTS; i++) {
        struct microvmi_event event = next_event(vm);

        CHECK(event.kind == MICROVMI_EVENT_MSR && event.number == MSR_SYSENTER_CS);
        CHECK(event.new_value == (read64(vm, COUNTER_ADDRESS) & 0xffff));
        WORKS(microvmi_reply_event(vm, &event, NULL));
    }
    unwatch(vm, MICROVMI_EVENT_MSR, MSR_SYSENTER_CS);
}

/* A denied write leaves the register as it was: the next flip starts from the same value. */
static void check_deny(void *vm)
{
    struct microvmi_reply deny = MICROVMI_REPLY_INIT;
    struct microvmi_event first, second;

    deny.action = MICROVMI_REPLY_DENY;
    watch(vm, MICROVMI_EVENT_CR, 4);
    first = next_event(vm);
    WORKS(microvmi_reply_event(vm, &first, &deny));
    second = next_event(vm);
    CHECK(second.old_value == first.old_value && second.new_value == first.new_value);
    WORKS(microvmi_reply_event(vm, &second, NULL));
    unwatch(vm, MICROVMI_EVENT_CR, 4);
}

static void check_registers(void *vm)
{
    struct microvmi_reply reply = MICROVMI_REPLY_INIT;
    struct microvmi_event event;
    struct Registers registers;

    watch(vm, MICROVMI_EVENT_CR, 4);
    event = next_event(vm);
    WORKS(microvmi_read_registers(vm, 0, &registers));
    CHECK(registers.x86.r15 == KNOWN_R15);
    registers.x86.r15 = 0x4242;
    reply.registers = &registers;
    WORKS(microvmi_reply_event(vm, &event, &reply));
    event = next_event(vm);
    WORKS(microvmi_read_registers(vm, 0, &registers));
    CHECK_SAYS(registers.x86.r15 == 0x4242, "r15 is %#" PRIx64, registers.x86.r15);
    WORKS(microvmi_reply_event(vm, &event, NULL));
    unwatch(vm, MICROVMI_EVENT_CR, 4);
}

/* An intercept that was switched off holds nobody, whatever had come before and was not listened to. */
static void check_switched_off(void *vm)
{
    int i;

    for (i = 0; i < EVENTS / 4; i++) {
        watch(vm, MICROVMI_EVENT_CR, 3);
        sleep_ms(50);
        unwatch(vm, MICROVMI_EVENT_CR, 3);
        CHECK_SAYS(counts(vm, 10), "the guest stands still after the intercept was switched off");
    }
}

/* For these Xen wants Intel's nested page tables, which the emulated processor does not have: a refusal, no harm. */
static void check_refusals(void *vm)
{
    struct microvmi_intercept step = intercept_of(MICROVMI_EVENT_SINGLE_STEP, 0);
    struct microvmi_intercept access = intercept_of(MICROVMI_EVENT_PAGE_ACCESS, 0);

    FAILS_WITH(MICROVMI_ERROR_NOT_SUPPORTED, microvmi_toggle_intercept(vm, 0, &step, true));
    FAILS_WITH(MICROVMI_ERROR_NOT_SUPPORTED, microvmi_toggle_intercept(vm, MICROVMI_ALL_VCPUS, &access, true));
    FAILS_WITH(MICROVMI_ERROR_NOT_SUPPORTED,
               microvmi_set_page_access(vm, PAGE_ADDRESS, MICROVMI_PAGE_ACCESS_READ));
    CHECK_SAYS(counts(vm, 10), "the guest stands still after a refusal");
}

/* One listener a domain; one that ends with an open event and live intercepts leaves a guest that runs. */
static void check_end(void *vm, void *other)
{
    struct microvmi_intercept cr3 = intercept_of(MICROVMI_EVENT_CR, 3);

    watch(vm, MICROVMI_EVENT_CR, 3);
    (void)next_event(vm);
    FAILS_WITH(MICROVMI_ERROR_DRIVER_UNAVAILABLE, microvmi_toggle_intercept(other, MICROVMI_ALL_VCPUS, &cr3, true));
    CHECK_SAYS(!counts(other, 0.5), "the guest runs while its event is open");
    microvmi_destroy(vm);
    CHECK_SAYS(counts(other, 10), "the guest stands still after the listener ended");
}

int main(void)
{
    void *vm = open_tiny(), *other = open_domain(TINY);
    struct microvmi_event event = MICROVMI_EVENT_INIT;

    check_cr3(vm);
    check_flips(vm, 0, CR0_FLIP);
    check_flips(vm, 4, CR4_FLIP);
    check_msr(vm);
    check_deny(vm);
    check_registers(vm);
    check_switched_off(vm);
    check_refusals(vm);
    FAILS_WITH(MICROVMI_ERROR_TIMEOUT, microvmi_listen(vm, 300, &event));
    check_end(vm, other);
    microvmi_destroy(other);
    return 0;
}
