/* SPDX-License-Identifier: Apache-2.0 */
/* A write lands: another context reads it, and the guest goes on from it. */
#include "domain.h"

#define FAR (1ull << 40)
#define NOTHING 0x40000000

static void check_across_frames(void *vm, void *other)
{
    uint64_t start = PATTERN_ADDRESS + PAGE - 96;
    uint8_t bytes[PAGE], read[PAGE];

    memset(bytes, 0xa5, sizeof(bytes));
    WORKS(microvmi_write_physical(vm, start, bytes, sizeof(bytes)));
    WORKS(microvmi_read_physical(other, start, read, sizeof(read), NULL));
    CHECK(memcmp(bytes, read, sizeof(bytes)) == 0);
    CHECK(read64(other, start - 8) == start - 8);
    CHECK(read64(other, start + PAGE) == start + PAGE);
}

int main(void)
{
    void *vm = open_tiny(), *other = open_domain(TINY);
    uint64_t value = 0x1122334455667788;

    CHECK(read64(vm, SCRATCH_ADDRESS) == SCRATCH_START);
    WORKS(microvmi_write_physical(vm, SCRATCH_ADDRESS, (uint8_t *)&value, sizeof(value)));
    CHECK(read64(other, SCRATCH_ADDRESS) == value);
    check_across_frames(vm, other);

    WORKS(microvmi_pause(vm));
    value = FAR;
    WORKS(microvmi_write_physical(vm, COUNTER_ADDRESS, (uint8_t *)&value, sizeof(value)));
    WORKS(microvmi_resume(vm));
    CHECK_SAYS(counts(vm, 10), "the guest does not go on");
    CHECK_SAYS(read64(other, COUNTER_ADDRESS) > FAR, "the guest did not see the write");

    FAILS_WITH(MICROVMI_ERROR_NOT_MAPPED, microvmi_write_physical(vm, NOTHING, (uint8_t *)&value, sizeof(value)));
    microvmi_destroy(other);
    microvmi_destroy(vm);
    return 0;
}
