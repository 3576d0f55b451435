// SPDX-License-Identifier: Apache-2.0
// look TARGET PHYSICAL VIRTUAL [CODE]: 16 bytes, a text, where vCPU 0 is, and when CODE is executed next.
#include <cstdio>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

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

// An address: 0x and no more hexadecimal digits than 64 bits have.
static std::uint64_t address(const std::string &text)
{
    if (text.compare(0, 2, "0x") != 0 || text.size() < 3 || text.size() > 18 ||
        text.find_first_not_of("0123456789abcdefABCDEF", 2) != std::string::npos) {
        throw std::invalid_argument("look: " + text + ": not an address, which is 0x and up to 16 hexadecimal digits");
    }
    return std::stoull(text, nullptr, 16);
}

static std::vector<std::uint64_t> addresses_of(int argc, char **argv)
{
    std::vector<std::uint64_t> addresses;

    if (argc < 4 || argc > 5) {
        throw std::invalid_argument("usage: look TARGET PHYSICAL VIRTUAL [CODE]");
    }
    for (int i = 2; i < argc; i++) {
        addresses.push_back(address(argv[i]));
    }
    return addresses;
}

static void look(const std::string &target, const std::vector<std::uint64_t> &addresses)
{
    microvmi::Machine vm = microvmi::Machine::open(target);
    std::uint8_t bytes[16];

    vm.pause();
    vm.read_physical(addresses[0], bytes, sizeof(bytes));
    for (std::size_t i = 0; i < sizeof(bytes); i++) {
        std::printf(i == 0 ? "%02x" : " %02x", bytes[i]);
    }
    std::printf("\n%s\n", text_at(vm, addresses[1]).c_str());
    Registers registers = vm.registers(0);
    if (registers.tag == X86) {
        std::printf("rip %#llx\n", static_cast<unsigned long long>(registers.x86.rip));
    }
    if (addresses.size() > 2) {
        vm.resume();
        std::printf("breakpoint %#llx\n", static_cast<unsigned long long>(wait_for(vm, addresses[2])));
    }
}

// What is not caught ends a program without giving back what was taken: the machine would stay paused.
int main(int argc, char **argv)
{
    try {
        std::vector<std::uint64_t> addresses = addresses_of(argc, argv);
        look(argv[1], addresses);
    } catch (const std::invalid_argument &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
    return 0;
}
