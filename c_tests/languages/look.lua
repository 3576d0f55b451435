-- SPDX-License-Identifier: Apache-2.0
-- look TARGET PHYSICAL VIRTUAL [CODE]: 16 bytes, a text, where vCPU 0 is, and when CODE is executed next.
local ffi = require("ffi")
ffi.cdef [[
struct microvmi_address_space {
    uint32_t struct_size, paging;
    uint64_t base, upper_base, control;
    uint32_t physical_bits, reserved;
};
struct microvmi_intercept {
    uint32_t struct_size, kind, number, flags;
    uint64_t address, size;
    uint32_t access, reserved;
};
struct microvmi_event {
    uint32_t struct_size, kind;
    uint64_t id;
    uint32_t vcpu, number;
    uint64_t old_value, new_value, physical_address, virtual_address;
    uint32_t access, instruction_length;
    uint64_t instruction_pointer;
    uint32_t stands, reserved;
    uint64_t lost;
};
// A tag, and room for 400 bytes, which on x86 begin with 30 registers; RIP is number 16.
struct Registers { uint32_t tag; uint64_t values[50]; };

void *microvmi_open(const char *uri, const char **error);
void microvmi_destroy(void *vm);
bool microvmi_pause(void *vm);
bool microvmi_resume(void *vm);
bool microvmi_read_physical(void *vm, uint64_t address, uint8_t *buffer, size_t size, uint64_t *bytes_read);
bool microvmi_get_address_space(void *vm, uint16_t vcpu, struct microvmi_address_space *space);
bool microvmi_read_virtual_padded(void *vm, const struct microvmi_address_space *space, uint64_t address,
                                  uint8_t *buffer, size_t size, uint64_t *bytes_read);
bool microvmi_read_registers(void *vm, uint16_t vcpu, struct Registers *registers);
bool microvmi_toggle_intercept(void *vm, uint16_t vcpu, const struct microvmi_intercept *intercept, bool enabled);
bool microvmi_listen(void *vm, uint32_t timeout_ms, struct microvmi_event *event);
bool microvmi_reply_event(void *vm, const struct microvmi_event *event, const void *reply);
const char *microvmi_last_error(void);
void rs_cstring_free(char *text);

uint64_t strtoull(const char *text, char **end, int base);
int snprintf(char *text, size_t size, const char *format, ...);
]]
local microvmi = ffi.load("microvmi")
local X86, RIP, BREAKPOINT, ALL_VCPUS = 0, 16, 3, 0xffff

-- End the program, which has no machine yet.
local function misused(line)
    io.stderr:write(line, "\n")
    os.exit(2)
end

-- An address: 0x and no more hexadecimal digits than 64 bits have. Lua's own numbers have 53 bits.
local function address(text)
    if #text > 18 or not text:match("^0x%x+$") then
        misused("look: " .. text .. ": not an address, which is 0x and up to 16 hexadecimal digits")
    end
    return ffi.C.strtoull(text, nil, 16)
end

local function hexadecimal(value)
    local text = ffi.new("char[32]")
    ffi.C.snprintf(text, 32, "%#llx", value)
    return ffi.string(text)
end

-- What a call says by its result, and its thread's error right behind it.
local function check(good)
    if not good then error(ffi.string(microvmi.microvmi_last_error()), 0) end
end

local function sized(name)
    return ffi.new("struct " .. name, {struct_size = ffi.sizeof("struct " .. name)})
end

local function open(target)
    local text = ffi.new("const char *[1]")
    local vm = microvmi.microvmi_open(target, text)
    if vm == nil then
        local reason = ffi.string(text[0])
        microvmi.rs_cstring_free(ffi.cast("char *", text[0]))
        error(reason, 0)
    end
    return ffi.gc(vm, microvmi.microvmi_destroy)
end

local function text_at(vm, address)
    local space, text = sized("microvmi_address_space"), ffi.new("uint8_t[257]")
    check(microvmi.microvmi_get_address_space(vm, 0, space))
    check(microvmi.microvmi_read_virtual_padded(vm, space, address, text, 256, nil))
    return ffi.string(text):match("^[^\n]*")
end

local function wait_for(vm, address)
    local code, event = sized("microvmi_intercept"), sized("microvmi_event")
    code.kind, code.address = BREAKPOINT, address
    check(microvmi.microvmi_resume(vm))
    check(microvmi.microvmi_toggle_intercept(vm, ALL_VCPUS, code, true))
    check(microvmi.microvmi_listen(vm, 60000, event))
    check(microvmi.microvmi_reply_event(vm, event, nil))
    return event.instruction_pointer
end

local function look(target, physical, virtual, code)
    local vm = open(target)
    check(microvmi.microvmi_pause(vm))
    local bytes = ffi.new("uint8_t[16]")
    check(microvmi.microvmi_read_physical(vm, physical, bytes, 16, nil))
    print((ffi.string(bytes, 16):gsub(".", function(c) return (" %02x"):format(c:byte()) end):sub(2)))
    print(text_at(vm, virtual))
    local registers = ffi.new("struct Registers")
    check(microvmi.microvmi_read_registers(vm, 0, registers))
    if registers.tag == X86 then print("rip " .. hexadecimal(registers.values[RIP])) end
    if code then print("breakpoint " .. hexadecimal(wait_for(vm, code))) end
    microvmi.microvmi_destroy(ffi.gc(vm, nil))
end

if #arg ~= 3 and #arg ~= 4 then misused("usage: look TARGET PHYSICAL VIRTUAL [CODE]") end
local physical, virtual, code = address(arg[2]), address(arg[3]), arg[4] and address(arg[4])
local good, reason = pcall(look, arg[1], physical, virtual, code)
if not good then
    io.stderr:write(reason, "\n")
    os.exit(1)
end
