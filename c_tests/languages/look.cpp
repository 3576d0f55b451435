// SPDX-License-Identifier: Apache-2.0
// look TARGET PHYSICAL VIRTUAL [CODE]: 16 bytes, a text, where vCPU 0 is, and when CODE is executed next.
#include <cstdio>
#include <cstring>
#include <string>

#include <libmicrovmi.hpp>

// The first line of a text in virtual memory; what is not mapped behind it is zeros.
static std::string text_at(const microvmi::Machine &vm, std::uint64_t address)
{
    char text[257] = "";

    vm.read_virtual_padded(vm.address_space(0), address, text, sizeof(text) - 1);
    return std::string(text, std::strcspn(text, "\n"));
}

static std::uint64_t wait_for(const microvmi::Machine &vm, std::uint64_t address)
{
    microvmi_intercept code = MICROVMI_INTERCEPT_INIT;

    code.kind = MICROVMI_EVENT_BREAKPOINT;
    code.address = address;
    microvmi::Intercept breakpoint(vm, code);
    microvmi::Event event(vm, 60000);
    return event->instruction_pointer;
}

static std::uint64_t number(const char *text)
{
    return std::stoull(text, nullptr, 0);
}

static void look(int argc, char **argv)
{
    microvmi::Machine vm = microvmi::Machine::open(argv[1]);
    std::uint8_t bytes[16];

    vm.pause();
    vm.read_physical(number(argv[2]), bytes, sizeof(bytes));
    for (std::size_t i = 0; i < sizeof(bytes); i++) {
        std::printf(i == 0 ? "%02x" : " %02x", bytes[i]);
    }
    std::printf("\n%s\n", text_at(vm, number(argv[3])).c_str());
    Registers registers = vm.registers(0);
    if (registers.tag == X86) {
        std::printf("rip %#llx\n", static_cast<unsigned long long>(registers.x86.rip));
    }
    if (argc > 4) {
        vm.resume();
        std::printf("breakpoint %#llx\n", static_cast<unsigned long long>(wait_for(vm, number(argv[4]))));
    }
}

int main(int argc, char **argv)
{
    try {
        look(argc, argv);
    } catch (const microvmi::Error &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
    return 0;
}
