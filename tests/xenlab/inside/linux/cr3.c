/* SPDX-License-Identifier: Apache-2.0 */
/* 500 writes of CR3 in a Linux guest are received and answered without loss. */
#include "domain.h"

#define EVENTS 500
#define BASE_BITS 0x000ffffffffff000ull

/* Nothing is lost: the register held what the event before wrote. */
static size_t follow(void *vm, int count, uint64_t *roots, size_t capacity)
{
    uint64_t before = 0, id = 0;
    size_t distinct = 0, i;

    while (count-- > 0) {
        struct microvmi_event event = next_event(vm);

        CHECK(event.kind == MICROVMI_EVENT_CR && event.number == 3 && event.vcpu == 0);
        CHECK_SAYS(before == 0 || event.old_value == before, "lost: %#" PRIx64 " was written, then %#" PRIx64 " held",
                   before, event.old_value);
        CHECK(event.id != id);
        before = event.new_value;
        id = event.id;
        for (i = 0; i < distinct && roots[i] != (event.new_value & BASE_BITS); i++)
            ;
        if (i == distinct && distinct < capacity)
            roots[distinct++] = event.new_value & BASE_BITS;
        WORKS(microvmi_reply_event(vm, &event, NULL));
    }
    return distinct;
}

int main(void)
{
    uint64_t roots[64], page[512];
    size_t distinct, i;
    double start;
    void *vm = open_domain(LINUX);

    watch(vm, MICROVMI_EVENT_CR, 3);
    start = now();
    distinct = follow(vm, EVENTS, roots, 64);
    printf("figure: %d CR3 events of %zu address spaces in %.2f s\n", EVENTS, distinct, now() - start);
    CHECK_SAYS(distinct >= 2, "%zu address spaces", distinct);
    for (i = 0; i < distinct; i++)
        WORKS(microvmi_read_physical(vm, roots[i], (uint8_t *)page, sizeof(page), NULL));
    microvmi_destroy(vm);

    /* The guest runs on: the next client sees it. */
    vm = open_domain(LINUX);
    watch(vm, MICROVMI_EVENT_CR, 3);
    (void)follow(vm, 10, roots, 64);
    microvmi_destroy(vm);
    return 0;
}
