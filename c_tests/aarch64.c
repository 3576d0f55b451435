/* SPDX-License-Identifier: Apache-2.0 */
/* Registers of a machine with AArch64 vCPUs, the driver "arm" of tests/plugins: each has its place in its top byte. */
#include "api.h"

static void registers_are_read(void *vm, struct Registers *registers)
{
    uint64_t words[50];

    CHECK_SAYS(microvmi_read_registers(vm, 1, registers), "%s", microvmi_last_error());
    CHECK(registers->tag == MICROVMI_REGISTERS_AARCH64);
    CHECK(sizeof(registers->aarch64) == sizeof(words));
    memcpy(words, &registers->aarch64, sizeof(words));
    for (uint64_t place = 0; place < 50; place++) {
        CHECK(words[place] == (((place + 1) << 56) | 0xa64001));
    }
    CHECK(registers->aarch64.x30 >> 56 == 31 && registers->aarch64.pc >> 56 == 32);
    CHECK(registers->aarch64.ttbr0_el1 >> 56 == 36 && registers->aarch64.id_aa64mmfr0_el1 >> 56 == 50);
}

static void they_are_written(void *vm, struct Registers *registers)
{
    struct Registers back;

    registers->aarch64.x0 = UINT64_MAX;
    registers->aarch64.pc = UINT64_C(0xffff800008000000);
    CHECK_SAYS(microvmi_write_registers(vm, 1, registers), "%s", microvmi_last_error());
    CHECK(microvmi_read_registers(vm, 1, &back));
    CHECK(memcmp(&back.aarch64, &registers->aarch64, sizeof(back.aarch64)) == 0);
    CHECK(microvmi_read_registers(vm, 0, &back) && back.aarch64.x0 == ((UINT64_C(1) << 56) | 0xa64000));
}

static void another_tag_writes_nothing(void *vm, struct Registers *registers)
{
    static const int tags[] = {X86, 2, 77};
    struct Registers back;

    registers->aarch64.x0 = 0xbad;
    for (size_t i = 0; i < sizeof(tags) / sizeof(*tags); i++) {
        memcpy(&registers->tag, &tags[i], sizeof(tags[i]));
        CHECK(!microvmi_write_registers(vm, 1, registers));
        CHECK(microvmi_last_error_code() == MICROVMI_ERROR_INVALID_ARGUMENT);
    }
    CHECK(microvmi_read_registers(vm, 1, &back) && back.aarch64.x0 == UINT64_MAX);
}

int main(void)
{
    struct Registers registers;
    void *vm = open_or_fail("vmi://arm/");

    registers_are_read(vm, &registers);
    they_are_written(vm, &registers);
    another_tag_writes_nothing(vm, &registers);
    microvmi_destroy(vm);
    return 0;
}
