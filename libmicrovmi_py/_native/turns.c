/* SPDX-License-Identifier: Apache-2.0 */
/* Turns with Python's lock: those who wait for it, and those who let them have it between two pieces of work. */
#include "take_turns.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* So long a turn is offered: who is not there by then may be kept from running by other things. */
#define MVI_OFFER_NS 1000000

uint32_t mvi_turns_wanted;
static uint32_t mvi_turns_taken; /* counts; changes with every turn that was taken */
static uint32_t mvi_turns_offered;

void mvi_turns_give(void)
{
    uint32_t before = __atomic_load_n(&mvi_turns_taken, __ATOMIC_SEQ_CST);
    struct timespec limit = {0, MVI_OFFER_NS};

    __atomic_add_fetch(&mvi_turns_offered, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&mvi_turns_wanted, __ATOMIC_SEQ_CST) != 0)
        (void)syscall(SYS_futex, &mvi_turns_taken, FUTEX_WAIT_PRIVATE, before, &limit, NULL, 0);
    __atomic_sub_fetch(&mvi_turns_offered, 1, __ATOMIC_SEQ_CST);
}

void mvi_turn_wait(void)
{
    __atomic_add_fetch(&mvi_turns_wanted, 1, __ATOMIC_SEQ_CST);
}

void mvi_turn_taken(void)
{
    __atomic_sub_fetch(&mvi_turns_wanted, 1, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&mvi_turns_taken, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&mvi_turns_offered, __ATOMIC_SEQ_CST) != 0)
        (void)syscall(SYS_futex, &mvi_turns_taken, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}
