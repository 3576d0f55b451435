// SPDX-License-Identifier: Apache-2.0
// look TARGET PHYSICAL VIRTUAL [CODE]: 16 bytes, a text, where vCPU 0 is, and when CODE is executed next.
const koffi = require("koffi");

const X86 = 0, BREAKPOINT = 3, ALL_VCPUS = 0xffff;
const u32 = "uint32_t", u64 = "uint64_t";
koffi.struct("AddressSpace", {
  struct_size: u32, paging: u32, base: u64, upper_base: u64, control: u64, physical_bits: u32, reserved: u32,
});
koffi.struct("Intercept", {
  struct_size: u32, kind: u32, number: u32, flags: u32, address: u64, size: u64, access: u32, reserved: u32,
});
koffi.struct("Event", {
  struct_size: u32, kind: u32, id: u64, vcpu: u32, number: u32, old_value: u64, new_value: u64,
  physical_address: u64, virtual_address: u64, access: u32, instruction_length: u32, instruction_pointer: u64,
  stands: u32, reserved: u32, lost: u64,
});
// A tag, and room for 400 bytes, which on x86 begin with 30 registers; RIP is number 16.
koffi.struct("Registers", { tag: u32, before: koffi.array(u64, 16), rip: u64, behind: koffi.array(u64, 33) });

const library = koffi.load("libmicrovmi.so");
const open = library.func("void *microvmi_open(const char *uri, _Out_ void **error)");
const destroy = library.func("void microvmi_destroy(void *vm)");
const pause = library.func("bool microvmi_pause(void *vm)");
const resume = library.func("bool microvmi_resume(void *vm)");
const readPhysical = library.func(
  "bool microvmi_read_physical(void *vm, uint64_t address, uint8_t *buffer, size_t size, void *read)");
const getAddressSpace = library.func(
  "bool microvmi_get_address_space(void *vm, uint16_t vcpu, _Inout_ AddressSpace *space)");
const readVirtualPadded = library.func("bool microvmi_read_virtual_padded(" +
  "void *vm, const AddressSpace *space, uint64_t address, uint8_t *buffer, size_t size, void *read)");
const readRegisters = library.func("bool microvmi_read_registers(void *vm, uint16_t vcpu, _Out_ Registers *out)");
const toggleIntercept = library.func(
  "bool microvmi_toggle_intercept(void *vm, uint16_t vcpu, const Intercept *intercept, bool enabled)");
const listen = library.func("bool microvmi_listen(void *vm, uint32_t timeout_ms, _Inout_ Event *event)");
const replyEvent = library.func("bool microvmi_reply_event(void *vm, const Event *event, void *reply)");
const lastError = library.func("const char *microvmi_last_error()");
const free = library.func("void rs_cstring_free(void *text)");

// A struct that is all zeros but its size, and what `members` has.
function sized(name, members = {}) {
  const zeros = koffi.decode(Buffer.alloc(koffi.sizeof(name)), name);
  return Object.assign(zeros, { struct_size: koffi.sizeof(name) }, members);
}

// What a call says by its result, and its thread's error right behind it: here all calls are made by one thread.
function check(good) {
  if (!good) throw new Error(lastError());
}

function openMachine(target) {
  const error = [null];
  const vm = open(target, error);
  if (vm) return vm;
  const text = koffi.decode(error[0], "char", -1);
  free(error[0]);
  throw new Error(text);
}

function textAt(vm, address) {
  const space = sized("AddressSpace");
  const text = Buffer.alloc(256);
  check(getAddressSpace(vm, 0, space));
  check(readVirtualPadded(vm, space, address, text, text.length, null));
  return text.toString().split(/[\n\0]/)[0];
}

function waitFor(vm, address) {
  const event = sized("Event");
  check(resume(vm));
  check(toggleIntercept(vm, ALL_VCPUS, sized("Intercept", { kind: BREAKPOINT, address }), true));
  check(listen(vm, 60000, event));
  check(replyEvent(vm, event, null));
  return event.instruction_pointer;
}

// End the program, which has no machine yet.
function misused(line) {
  console.error(line);
  process.exit(2);
}

// An address: 0x and no more hexadecimal digits than 64 bits have.
function address(text) {
  if (!/^0x[0-9a-fA-F]{1,16}$/.test(text)) {
    misused(`look: ${text}: not an address, which is 0x and up to 16 hexadecimal digits`);
  }
  return BigInt(text);
}

function look(target, [physical, virtual, code]) {
  const vm = openMachine(target);
  try {
    check(pause(vm));
    const bytes = Buffer.alloc(16);
    check(readPhysical(vm, physical, bytes, bytes.length, null));
    console.log(bytes.toString("hex").match(/../g).join(" "));
    console.log(textAt(vm, virtual));
    const registers = {};
    check(readRegisters(vm, 0, registers));
    if (registers.tag === X86) console.log(`rip 0x${registers.rip.toString(16)}`);
    if (code !== undefined) console.log(`breakpoint 0x${waitFor(vm, code).toString(16)}`);
  } finally {
    destroy(vm);
  }
}

const [target, ...texts] = process.argv.slice(2);
if (texts.length < 2 || texts.length > 3) misused("usage: look TARGET PHYSICAL VIRTUAL [CODE]");
const addresses = texts.map(address);
try {
  look(target, addresses);
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
