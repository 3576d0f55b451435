# SPDX-License-Identifier: Apache-2.0
# look TARGET PHYSICAL VIRTUAL [CODE]: 16 bytes, a text, where vCPU 0 is, and when CODE is executed next.
"""In any Python from 3.10 on, with the module that ``python -m libmicrovmi_py.stubgen`` writes."""

from __future__ import annotations

import ctypes
import re
import sys
from typing import NoReturn

import microvmi_ctypes as mv

lib = mv.load()


def check(good: bool) -> None:
    """What a call says by its result, and its thread's error right behind it."""
    if not good:
        sys.exit((lib.microvmi_last_error() or b"").decode())


def open_machine(target: str) -> int:
    """A context; without one the program ends."""
    error = ctypes.POINTER(ctypes.c_char)()
    vm = lib.microvmi_open(target.encode(), ctypes.byref(error))
    if vm is not None:
        return vm
    text = ctypes.string_at(error).decode()
    lib.rs_cstring_free(error)
    sys.exit(text)


def text_at(vm: int, address: int) -> str:
    """The first line of a text in virtual memory; what is not mapped behind it is zeros."""
    space = mv.microvmi_address_space(struct_size=ctypes.sizeof(mv.microvmi_address_space))
    text = (ctypes.c_uint8 * 256)()
    check(lib.microvmi_get_address_space(vm, 0, space))
    check(lib.microvmi_read_virtual_padded(vm, space, address, text, len(text), None))
    return re.split(rb"[\n\0]", bytes(text))[0].decode(errors="replace")


def wait_for(vm: int, address: int) -> int:
    """Wait for a vCPU to come to an instruction, and let it go on."""
    code = mv.microvmi_intercept(struct_size=ctypes.sizeof(mv.microvmi_intercept))
    code.kind, code.address = mv.MICROVMI_EVENT_BREAKPOINT, address
    event = mv.microvmi_event(struct_size=ctypes.sizeof(mv.microvmi_event))
    check(lib.microvmi_resume(vm))
    check(lib.microvmi_toggle_intercept(vm, mv.MICROVMI_ALL_VCPUS, code, True))
    check(lib.microvmi_listen(vm, 60000, event))
    check(lib.microvmi_reply_event(vm, event, None))
    return event.instruction_pointer


def misused(line: str) -> NoReturn:
    """End the program, which has no machine yet."""
    print(line, file=sys.stderr)
    sys.exit(2)


def address(text: str) -> int:
    """``0x`` and no more hexadecimal digits than 64 bits have."""
    if re.fullmatch("0x[0-9a-fA-F]{1,16}", text) is None:
        misused(f"look: {text}: not an address, which is 0x and up to 16 hexadecimal digits")
    return int(text, 16)


def look(target: str, physical: int, virtual: int, code: int | None = None) -> None:
    vm = open_machine(target)
    check(lib.microvmi_pause(vm))
    page = (ctypes.c_uint8 * 16)()
    check(lib.microvmi_read_physical(vm, physical, page, len(page), None))
    print(bytes(page).hex(" "))
    print(text_at(vm, virtual))
    registers = mv.Registers()
    check(lib.microvmi_read_registers(vm, 0, registers))
    if registers.tag == mv.X86:
        print(f"rip {registers.x86.rip:#x}")
    if code is not None:
        print(f"breakpoint {wait_for(vm, code):#x}")
    lib.microvmi_destroy(vm)


if len(sys.argv) not in (4, 5):
    misused("usage: look TARGET PHYSICAL VIRTUAL [CODE]")
look(sys.argv[1], *map(address, sys.argv[2:]))
