// SPDX-License-Identifier: Apache-2.0
// look TARGET PHYSICAL VIRTUAL [CODE]: 16 bytes, a text, where vCPU 0 is, and when CODE is executed next.
use std::ffi::{c_void, CStr, CString};
use std::mem::size_of;
use std::os::raw::c_char;
use std::ptr;

#[repr(C)]
#[derive(Default)]
struct AddressSpace {
    struct_size: u32,
    paging: u32,
    base: u64,
    upper_base: u64,
    control: u64,
    physical_bits: u32,
    reserved: u32,
}

#[repr(C)]
#[derive(Default)]
struct Intercept {
    struct_size: u32,
    kind: u32,
    number: u32,
    flags: u32,
    address: u64,
    size: u64,
    access: u32,
    reserved: u32,
}

#[repr(C)]
#[derive(Default)]
struct Event {
    struct_size: u32,
    kind: u32,
    id: u64,
    vcpu: u32,
    number: u32,
    old_value: u64,
    new_value: u64,
    physical_address: u64,
    virtual_address: u64,
    access: u32,
    instruction_length: u32,
    instruction_pointer: u64,
    stands: u32,
    reserved: u32,
    lost: u64,
}

/// `struct Registers`: a tag, and room for 400 bytes, which on x86 begin with 30 registers; RIP is number 16.
#[repr(C)]
struct Registers {
    tag: u32,
    values: [u64; 50],
}

const X86: u32 = 0;
const RIP: usize = 16;
const BREAKPOINT: u32 = 3;
const ALL_VCPUS: u16 = 0xffff;

#[link(name = "microvmi")]
extern "C" {
    fn microvmi_open(uri: *const c_char, error: *mut *const c_char) -> *mut c_void;
    fn microvmi_destroy(vm: *mut c_void);
    fn microvmi_pause(vm: *mut c_void) -> bool;
    fn microvmi_resume(vm: *mut c_void) -> bool;
    fn microvmi_read_physical(vm: *mut c_void, address: u64, buffer: *mut u8, size: usize, read: *mut u64) -> bool;
    fn microvmi_get_address_space(vm: *mut c_void, vcpu: u16, space: *mut AddressSpace) -> bool;
    fn microvmi_read_virtual_padded(
        vm: *mut c_void, space: *const AddressSpace, address: u64, buffer: *mut u8, size: usize, read: *mut u64,
    ) -> bool;
    fn microvmi_read_registers(vm: *mut c_void, vcpu: u16, registers: *mut Registers) -> bool;
    fn microvmi_toggle_intercept(vm: *mut c_void, vcpu: u16, intercept: *const Intercept, enabled: bool) -> bool;
    fn microvmi_listen(vm: *mut c_void, timeout_ms: u32, event: *mut Event) -> bool;
    fn microvmi_reply_event(vm: *mut c_void, event: *const Event, reply: *const c_void) -> bool;
    fn microvmi_last_error() -> *const c_char;
    fn rs_cstring_free(text: *mut c_char);
}

/// A machine; it is closed when it goes out of scope. (A `*mut c_void` is not `Send`: who hands the machine to other
/// threads says `unsafe impl Send for Machine {}`, as the library may be called from any.)
struct Machine(*mut c_void);

impl Drop for Machine {
    fn drop(&mut self) {
        unsafe { microvmi_destroy(self.0) }
    }
}

/// What a call says by its result, and its thread's error right behind it.
fn check(good: bool) -> Result<(), String> {
    if good {
        return Ok(());
    }
    Err(unsafe { CStr::from_ptr(microvmi_last_error()) }.to_string_lossy().into_owned())
}

impl Machine {
    fn open(target: &str) -> Result<Machine, String> {
        let uri = CString::new(target).map_err(|error| error.to_string())?;
        let mut error = ptr::null();
        let vm = unsafe { microvmi_open(uri.as_ptr(), &mut error) };
        if !vm.is_null() {
            return Ok(Machine(vm));
        }
        let text = unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned();
        unsafe { rs_cstring_free(error as *mut c_char) };
        Err(text)
    }

    fn bytes(&self, address: u64) -> Result<[u8; 16], String> {
        let mut bytes = [0; 16];
        check(unsafe { microvmi_read_physical(self.0, address, bytes.as_mut_ptr(), bytes.len(), ptr::null_mut()) })?;
        Ok(bytes)
    }

    fn text(&self, address: u64) -> Result<String, String> {
        let mut space = AddressSpace { struct_size: size_of::<AddressSpace>() as u32, ..Default::default() };
        let mut text = [0; 256];
        check(unsafe { microvmi_get_address_space(self.0, 0, &mut space) })?;
        let (buffer, size) = (text.as_mut_ptr(), text.len());
        check(unsafe { microvmi_read_virtual_padded(self.0, &space, address, buffer, size, ptr::null_mut()) })?;
        let line = text.split(|&byte| byte == b'\n' || byte == 0).next().unwrap_or(&[]);
        Ok(String::from_utf8_lossy(line).into_owned())
    }

    fn registers(&self) -> Result<Registers, String> {
        let mut registers = Registers { tag: X86, values: [0; 50] };
        check(unsafe { microvmi_read_registers(self.0, 0, &mut registers) })?;
        Ok(registers)
    }

    fn wait_for(&self, address: u64) -> Result<u64, String> {
        let size = size_of::<Intercept>() as u32;
        let code = Intercept { struct_size: size, kind: BREAKPOINT, address, ..Default::default() };
        let mut event = Event { struct_size: size_of::<Event>() as u32, ..Default::default() };
        check(unsafe { microvmi_resume(self.0) })?;
        check(unsafe { microvmi_toggle_intercept(self.0, ALL_VCPUS, &code, true) })?;
        check(unsafe { microvmi_listen(self.0, 60000, &mut event) })?;
        check(unsafe { microvmi_reply_event(self.0, &event, ptr::null()) })?;
        Ok(event.instruction_pointer)
    }
}

/// An address: 0x and no more hexadecimal digits than 64 bits have.
fn address(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").unwrap_or("");
    if digits.is_empty() || digits.len() > 16 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(format!("look: {}: not an address, which is 0x and up to 16 hexadecimal digits", text));
    }
    u64::from_str_radix(digits, 16).map_err(|error| error.to_string())
}

fn addresses(arguments: &[String]) -> Result<Vec<u64>, String> {
    if arguments.len() < 4 || arguments.len() > 5 {
        return Err("usage: look TARGET PHYSICAL VIRTUAL [CODE]".to_string());
    }
    arguments[2..].iter().map(|text| address(text)).collect()
}

fn look(target: &str, addresses: &[u64]) -> Result<(), String> {
    let vm = Machine::open(target)?;
    check(unsafe { microvmi_pause(vm.0) })?;
    let bytes: Vec<String> = vm.bytes(addresses[0])?.iter().map(|byte| format!("{:02x}", byte)).collect();
    println!("{}", bytes.join(" "));
    println!("{}", vm.text(addresses[1])?);
    let registers = vm.registers()?;
    if registers.tag == X86 {
        println!("rip {:#x}", registers.values[RIP]);
    }
    if let Some(&code) = addresses.get(2) {
        println!("breakpoint {:#x}", vm.wait_for(code)?);
    }
    Ok(())
}

fn end(status: i32, reason: String) -> ! {
    eprintln!("{}", reason);
    std::process::exit(status)
}

fn main() {
    let arguments: Vec<String> = std::env::args_os().map(|text| text.to_string_lossy().into_owned()).collect();
    let addresses = addresses(&arguments).unwrap_or_else(|reason| end(2, reason));
    look(&arguments[1], &addresses).unwrap_or_else(|reason| end(1, reason));
}
