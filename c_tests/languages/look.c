/* SPDX-License-Identifier: Apache-2.0 */
/* look TARGET PHYSICAL VIRTUAL [CODE]: 16 bytes, a text, where vCPU 0 is, and when CODE is executed next. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libmicrovmi.h>

/* An address: 0x and no more hexadecimal digits than 64 bits have. */
static bool parse_address(const char *text, uint64_t *address)
{
    size_t digits = strncmp(text, "0x", 2) == 0 ? strspn(text + 2, "0123456789abcdefABCDEF") : 0;

    if (digits < 1 || digits > 16 || text[2 + digits] != '\0') {
        fprintf(stderr, "look: %s: not an address, which is 0x and up to 16 hexadecimal digits\n", text);
        return false;
    }
    *address = strtoull(text, NULL, 16);
    return true;
}

static bool print_bytes(void *vm, uint64_t address)
{
    uint8_t bytes[16];
    size_t i;

    if (!microvmi_read_physical(vm, address, bytes, sizeof(bytes), NULL)) {
        return false;
    }
    for (i = 0; i < sizeof(bytes); i++) {
        printf(i == 0 ? "%02x" : " %02x", bytes[i]);
    }
    printf("\n");
    return true;
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

static bool print_rip(void *vm)
{
    struct Registers registers;

    if (!microvmi_read_registers(vm, 0, &registers)) {
        return false;
    }
    if (registers.tag == X86) {
        printf("rip %#" PRIx64 "\n", registers.x86.rip);
    }
    return true;
}

static bool look(void *vm, const uint64_t *addresses, int count)
{
    return microvmi_pause(vm) && print_bytes(vm, addresses[0]) && print_text(vm, addresses[1]) && print_rip(vm) &&
           (count < 3 || print_breakpoint(vm, addresses[2]));
}

int main(int argc, char **argv)
{
    const char *error;
    uint64_t addresses[3];
    bool good;
    void *vm;
    int i;

    if (argc < 4 || argc > 5) {
        fprintf(stderr, "usage: look TARGET PHYSICAL VIRTUAL [CODE]\n");
        return 2;
    }
    for (i = 2; i < argc; i++) {
        if (!parse_address(argv[i], &addresses[i - 2])) {
            return 2;
        }
    }
    vm = microvmi_open(argv[1], &error);
    if (vm == NULL) {
        fprintf(stderr, "%s\n", error);
        rs_cstring_free((char *)error);
        return 1;
    }
    good = look(vm, addresses, argc - 2);
    if (!good) {
        fprintf(stderr, "%s\n", microvmi_last_error());
    }
    microvmi_destroy(vm);
    return good ? 0 : 1;
}
