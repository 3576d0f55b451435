/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The read function of a libkvmi whose machines lie in this process: what stands around a foreign call shows best beside
 * one that does little. The rest of the library is the tests' own (tests/drivers/kvm), and so is the protocol by which
 * machines come. With -DCALL_NS=N a call takes at least so long, as one that waits for a hypervisor does.
 */
#undef kvmi_read_physical /* the one over the socket is called otherwise */

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#define MEMORY ((size_t)16 << 20)
#ifndef CALL_NS
#define CALL_NS 0
#endif

static uint64_t memory[MEMORY / 8];

__attribute__((constructor)) static void fill(void)
{
    for (size_t i = 0; i < MEMORY / 8; i++)
        memory[i] = i + 1;
}

static int64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000 + time.tv_nsec;
}

int kvmi_read_physical(void *machine, unsigned long long address, void *buffer, size_t size)
{
    int64_t end = CALL_NS > 0 ? now() + CALL_NS : 0;

    (void)machine;
    if (size > MEMORY || address > MEMORY - size) {
        errno = ENOENT;
        return -1;
    }
    memcpy(buffer, (const uint8_t *)memory + address, size);
    while (CALL_NS > 0 && now() < end)
        continue;
    return 0;
}
