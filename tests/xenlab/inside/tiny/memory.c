/* SPDX-License-Identifier: Apache-2.0 */
/* Memory equals what the guest wrote, and changes when the guest runs. */
#include "domain.h"

#define NOTHING 0x40000000 /* far above the guest's 16 MiB, and below the highest frame that Xen names */

static const char text[] = "libmicrovmi: the tiny guest's page";
static uint64_t pattern[PATTERN_SIZE / 8];

static void check_page(void *vm)
{
    char shown[sizeof(text)];
    uint64_t count;

    WORKS(microvmi_read_physical(vm, PAGE_ADDRESS, (uint8_t *)shown, sizeof(shown), &count));
    CHECK(count == sizeof(shown) && memcmp(shown, text, sizeof(text)) == 0);
}

static void check_pattern(void *vm)
{
    uint64_t count;
    size_t i;

    WORKS(microvmi_read_physical(vm, PATTERN_ADDRESS, (uint8_t *)pattern, PATTERN_SIZE, &count));
    CHECK(count == PATTERN_SIZE);
    for (i = 0; i < PATTERN_SIZE / 8; i++)
        CHECK_SAYS(pattern[i] == PATTERN_ADDRESS + i * 8, "%#zx: %#" PRIx64, PATTERN_ADDRESS + i * 8, pattern[i]);
}

static void check_hole(void *vm)
{
    uint8_t bytes[2 * PAGE];
    uint64_t maximum, count = 1;

    WORKS(microvmi_get_max_physical_addr(vm, &maximum));
    CHECK(maximum >= PATTERN_ADDRESS + PATTERN_SIZE);
    FAILS_WITH(MICROVMI_ERROR_NOT_MAPPED, microvmi_read_physical(vm, NOTHING, bytes, sizeof(bytes), &count));
    CHECK(count == 0);
    memset(bytes, 0xff, sizeof(bytes));
    WORKS(microvmi_read_physical_padded(vm, NOTHING, bytes, sizeof(bytes), NULL));
    CHECK(bytes[0] == 0 && memcmp(bytes, bytes + 1, sizeof(bytes) - 1) == 0);
}

static void without_naming_the_driver(void)
{
    void *vm = open_domain("vmi:///?vm_name=tiny");

    CHECK(strcmp(microvmi_get_driver_name(vm), "xen") == 0);
    check_page(vm);
    microvmi_destroy(vm);
}

int main(void)
{
    void *vm = open_tiny();

    check_page(vm);
    check_pattern(vm);
    check_hole(vm);
    CHECK_SAYS(counts(vm, 10), "what is read does not change");
    microvmi_destroy(vm);
    without_naming_the_driver();
    return 0;
}
