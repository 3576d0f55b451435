# SPDX-License-Identifier: Apache-2.0
# look TARGET PHYSICAL VIRTUAL [CODE]: 16 bytes, a text, where vCPU 0 is, and when CODE is executed next.
require "fiddle/import"

module Microvmi
  extend Fiddle::Importer
  dlload "libmicrovmi.so"
  typealias "uint16_t", "unsigned short"
  typealias "uint32_t", "unsigned int"
  typealias "uint64_t", "unsigned long long"
  typealias "bool", "char" # as wide; not every version of Fiddle has it

  extern "void *microvmi_open(const char *, void *)"
  extern "void microvmi_destroy(void *)"
  extern "bool microvmi_pause(void *)"
  extern "bool microvmi_resume(void *)"
  extern "bool microvmi_read_physical(void *, uint64_t, void *, size_t, void *)"
  extern "bool microvmi_get_address_space(void *, uint16_t, void *)"
  extern "bool microvmi_read_virtual_padded(void *, void *, uint64_t, void *, size_t, void *)"
  extern "bool microvmi_read_registers(void *, uint16_t, void *)"
  extern "bool microvmi_toggle_intercept(void *, uint16_t, void *, bool)"
  extern "bool microvmi_listen(void *, uint32_t, void *)"
  extern "bool microvmi_reply_event(void *, void *, void *)"
  extern "const char *microvmi_last_error()"
  extern "void rs_cstring_free(void *)"

  AddressSpace = struct ["uint32_t struct_size", "uint32_t paging", "uint64_t base", "uint64_t upper_base",
                         "uint64_t control", "uint32_t physical_bits", "uint32_t reserved"]
  Intercept = struct ["uint32_t struct_size", "uint32_t kind", "uint32_t number", "uint32_t flags",
                      "uint64_t address", "uint64_t size", "uint32_t access", "uint32_t reserved"]
  Event = struct ["uint32_t struct_size", "uint32_t kind", "uint64_t id", "uint32_t vcpu", "uint32_t number",
                  "uint64_t old_value", "uint64_t new_value", "uint64_t physical_address",
                  "uint64_t virtual_address", "uint32_t access", "uint32_t instruction_length",
                  "uint64_t instruction_pointer", "uint32_t stands", "uint32_t reserved", "uint64_t lost"]
  # A tag, and room for 400 bytes, which on x86 begin with 30 registers; RIP is number 16.
  Registers = struct ["uint32_t tag", "uint64_t values[50]"]
  X86 = 0
  RIP = 16
  BREAKPOINT = 3
  ALL_VCPUS = 0xffff

  # A struct that is all zeros but its size.
  def self.zeroed(type)
    made = type.malloc(Fiddle::RUBY_FREE)
    made.to_ptr[0, type.size] = "\0" * type.size
    made.struct_size = type.size if type.members.include?("struct_size")
    made
  end

  def self.open(target)
    error = Fiddle::Pointer.malloc(Fiddle::SIZEOF_VOIDP, Fiddle::RUBY_FREE)
    vm = microvmi_open(target, error)
    return vm unless vm.null?
    text = error.ptr.to_s
    rs_cstring_free(error.ptr)
    abort text
  end

  # What a call says by its result, and its thread's error right behind it.
  def self.check(result)
    abort microvmi_last_error.to_s if result == 0
  end
end

# End the program, which has no machine yet.
def misused(line)
  warn line
  exit 2
end

# An address: 0x and no more hexadecimal digits than 64 bits have.
def address(text)
  return text.hex if text.b.match?(/\A0x[0-9a-fA-F]{1,16}\z/)
  misused "look: #{text}: not an address, which is 0x and up to 16 hexadecimal digits"
end

misused "usage: look TARGET PHYSICAL VIRTUAL [CODE]" unless [3, 4].include?(ARGV.size)
target, *texts = ARGV
physical, virtual, code = texts.map { |text| address(text) }
vm = Microvmi.open(target)
begin
  Microvmi.check Microvmi.microvmi_pause(vm)
  bytes = ("\0" * 16).b
  Microvmi.check Microvmi.microvmi_read_physical(vm, physical, bytes, bytes.bytesize, nil)
  puts bytes.unpack("H2" * 16).join(" ")

  space = Microvmi.zeroed(Microvmi::AddressSpace)
  text = ("\0" * 256).b
  Microvmi.check Microvmi.microvmi_get_address_space(vm, 0, space)
  Microvmi.check Microvmi.microvmi_read_virtual_padded(vm, space, virtual, text, text.bytesize, nil)
  puts text[/\A[^\n\0]*/]

  registers = Microvmi.zeroed(Microvmi::Registers)
  Microvmi.check Microvmi.microvmi_read_registers(vm, 0, registers)
  # Fiddle's integers are signed in some versions.
  printf("rip %#x\n", registers.values[Microvmi::RIP] & 0xffff_ffff_ffff_ffff) if registers.tag == Microvmi::X86

  if code
    wanted = Microvmi.zeroed(Microvmi::Intercept)
    wanted.kind = Microvmi::BREAKPOINT
    wanted.address = code
    event = Microvmi.zeroed(Microvmi::Event)
    Microvmi.check Microvmi.microvmi_resume(vm)
    Microvmi.check Microvmi.microvmi_toggle_intercept(vm, Microvmi::ALL_VCPUS, wanted, 1)
    Microvmi.check Microvmi.microvmi_listen(vm, 60000, event)
    printf("breakpoint %#x\n", event.instruction_pointer & 0xffff_ffff_ffff_ffff)
    Microvmi.check Microvmi.microvmi_reply_event(vm, event, nil)
  end
ensure
  Microvmi.microvmi_destroy(vm)
end
