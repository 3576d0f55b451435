/* SPDX-License-Identifier: Apache-2.0 */
/* look TARGET PHYSICAL VIRTUAL [CODE]: 16 bytes, a text, where vCPU 0 is, and when CODE is executed next. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libmicrovmi.h>

static int fail(void *vm)
{
    fprintf(stderr, "%s\n", microvmi_last_error());
    microvmi_destroy(vm);
    return 1;
}

/* The first line of a text in virtual memory; what is not mapped behind it is zeros. */
static bool print_text(void *vm, uint64_t address)
{
    struct microvmi_address_space space = MICROVMI_ADDRESS_SPACE_INIT;
    char text[257] = "";

    if (!microvmi_get_address_space(vm, 0, &space) ||
        !microvmi_read_virtual_padded(vm, &space, address, (uint8_t *)text, sizeof(text) - 1, NULL)) {
        return false;
    }
    printf("%.*s\n", (int)strcspn(text, "\n"), text);
    return true;
}

/* Wait for a vCPU to come to an instruction, and let it go on. */
static bool print_breakpoint(void *vm, uint64_t address)
{
    struct microvmi_intercept code = MICROVMI_INTERCEPT_INIT;
    struct microvmi_event event = MICROVMI_EVENT_INIT;

    code.kind = MICROVMI_EVENT_BREAKPOINT;
    code.address = address;
    if (!microvmi_resume(vm) || !microvmi_toggle_intercept(vm, MICROVMI_ALL_VCPUS, &code, true) ||
        !microvmi_listen(vm, 60000, &event)) {
        return false;
    }
    printf("breakpoint %#" PRIx64 "\n", event.instruction_pointer);
    return microvmi_reply_event(vm, &event, NULL);
}

int main(int argc, char **argv)
{
    const char *error;
    struct Registers registers;
    uint8_t bytes[16];
    size_t i;
    void *vm = microvmi_open(argv[1], &error);

    if (vm == NULL) {
        fprintf(stderr, "%s\n", error);
        rs_cstring_free((char *)error);
        return 1;
    }
    if (!microvmi_pause(vm) || !microvmi_read_physical(vm, strtoull(argv[2], NULL, 0), bytes, sizeof(bytes), NULL)) {
        return fail(vm);
    }
    for (i = 0; i < sizeof(bytes); i++) {
        printf(i == 0 ? "%02x" : " %02x", bytes[i]);
    }
    printf("\n");
    if (!print_text(vm, strtoull(argv[3], NULL, 0)) || !microvmi_read_registers(vm, 0, &registers)) {
        return fail(vm);
    }
    if (registers.tag == X86) {
        printf("rip %#" PRIx64 "\n", registers.x86.rip);
    }
    if (argc > 4 && !print_breakpoint(vm, strtoull(argv[4], NULL, 0))) {
        return fail(vm);
    }
    microvmi_destroy(vm);
    return 0;
}
