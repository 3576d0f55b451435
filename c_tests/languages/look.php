<?php
// SPDX-License-Identifier: Apache-2.0
// look TARGET PHYSICAL VIRTUAL [CODE]: 16 bytes, a text, where vCPU 0 is, and when CODE is executed next.
const X86 = 0, RIP = 16, BREAKPOINT = 3, ALL_VCPUS = 0xffff;

$ffi = FFI::cdef(<<<'C'
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

void *microvmi_open(const char *uri, char **error);
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
C, "libmicrovmi.so");

// End the program, which has no machine yet.
function misused(string $line): never
{
    fwrite(STDERR, "$line\n");
    exit(2);
}

// An address: 0x and no more hexadecimal digits than 64 bits have. PHP's integers are signed: addresses of the upper
// half are negative ones.
function address(string $text): int
{
    if (!preg_match('/\A0x[0-9a-fA-F]{1,16}\z/', $text)) {
        misused("look: $text: not an address, which is 0x and up to 16 hexadecimal digits");
    }
    return unpack("J", hex2bin(str_pad(substr($text, 2), 16, "0", STR_PAD_LEFT)))[1];
}

// What a call says by its result, and its thread's error right behind it.
function check(FFI $ffi, bool $good): void
{
    if (!$good) {
        throw new RuntimeException($ffi->microvmi_last_error());
    }
}

// A struct of the library's, which is all zeros but its size.
function sized(FFI $ffi, string $name): FFI\CData
{
    $made = $ffi->new("struct $name");
    $made->struct_size = FFI::sizeof($made);
    return $made;
}

function open_machine(FFI $ffi, string $target): FFI\CData
{
    $error = $ffi->new("char *");
    $vm = $ffi->microvmi_open($target, FFI::addr($error));
    if ($vm === null) {
        $text = FFI::string($error);
        $ffi->rs_cstring_free($error);
        throw new RuntimeException($text);
    }
    return $vm;
}

function text_at(FFI $ffi, FFI\CData $vm, int $address): string
{
    $space = sized($ffi, "microvmi_address_space");
    $text = $ffi->new("uint8_t[257]");
    check($ffi, $ffi->microvmi_get_address_space($vm, 0, FFI::addr($space)));
    check($ffi, $ffi->microvmi_read_virtual_padded($vm, FFI::addr($space), $address, $text, 256, null));
    $bytes = FFI::string($text, 256);
    return substr($bytes, 0, strcspn($bytes, "\n\0"));
}

function wait_for(FFI $ffi, FFI\CData $vm, int $address): int
{
    $code = sized($ffi, "microvmi_intercept");
    $code->kind = BREAKPOINT;
    $code->address = $address;
    $event = sized($ffi, "microvmi_event");
    check($ffi, $ffi->microvmi_resume($vm));
    check($ffi, $ffi->microvmi_toggle_intercept($vm, ALL_VCPUS, FFI::addr($code), true));
    check($ffi, $ffi->microvmi_listen($vm, 60000, FFI::addr($event)));
    check($ffi, $ffi->microvmi_reply_event($vm, FFI::addr($event), null));
    return $event->instruction_pointer;
}

function look(FFI $ffi, FFI\CData $vm, int $physical, int $virtual, ?int $code = null): void
{
    check($ffi, $ffi->microvmi_pause($vm));
    $bytes = $ffi->new("uint8_t[16]");
    check($ffi, $ffi->microvmi_read_physical($vm, $physical, $bytes, 16, null));
    echo implode(" ", str_split(bin2hex(FFI::string($bytes, 16)), 2)), "\n";
    echo text_at($ffi, $vm, $virtual), "\n";
    $registers = $ffi->new("struct Registers");
    check($ffi, $ffi->microvmi_read_registers($vm, 0, FFI::addr($registers)));
    if ($registers->tag === X86) {
        printf("rip 0x%x\n", $registers->values[RIP]);
    }
    if ($code !== null) {
        printf("breakpoint 0x%x\n", wait_for($ffi, $vm, $code));
    }
}

if ($argc < 4 || $argc > 5) {
    misused("usage: look TARGET PHYSICAL VIRTUAL [CODE]");
}
$addresses = array_map("address", array_slice($argv, 2));
$vm = null;
$status = 0;
try {
    $vm = open_machine($ffi, $argv[1]);
    look($ffi, $vm, ...$addresses);
} catch (RuntimeException $error) {
    fwrite(STDERR, $error->getMessage() . "\n");
    $status = 1;
}
$ffi->microvmi_destroy($vm);
exit($status);
