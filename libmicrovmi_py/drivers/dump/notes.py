# SPDX-License-Identifier: Apache-2.0
"""Registers out of the notes of an ELF core; kdump files of QEMU carry the same notes.

QEMU writes for each vCPU an NT_PRSTATUS and, of x86 machines, a note of its own (name QEMU, type 0); VirtualBox writes
notes VBCORE and VBCPU (include/VBox/vmm/dbgfcorefmt.h); a kernel that crashed left an NT_PRSTATUS for each. All
little-endian. What a note does not have stays unknown.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator, Sequence

from libmicrovmi_py.arch.state import VcpuState
from libmicrovmi_py.arch.x86.descriptors import attributes
from libmicrovmi_py.arch.x86.registers import CODE_AND_DATA, DEBUG, GENERAL, NUMBERED, TABLES
from libmicrovmi_py.declare import NamedTuple, replace
from libmicrovmi_py.drivers.dump.contents import Processors
from libmicrovmi_py.model import Architecture

MAX_SIZE = 64 << 20
"""The most bytes that notes may have."""

_MAX_COUNT = 1 << 12
"""The most vCPUs: more than any x86 machine has, and few enough to look at each."""

_NOTE = struct.Struct("<3I")
_NT_PRSTATUS, _QEMU, _VBCORE, _VBCPU = (b"CORE", 1), (b"QEMU", 0), (b"VBCORE", 0xB00), (b"VBCPU", 0xB01)
_NT_TASKSTRUCT = (b"CORE", 4)
_WIDE_SIZE, _NARROW_SIZE, _AARCH64_SIZE = 336, 144, 392
"""What an NT_PRSTATUS has on x86-64, on 32-bit x86, and on AArch64."""

_SEGMENTS = (*CODE_AND_DATA, "ldt", "tr")

_QEMU_STATE = struct.Struct("<2I18Q" + "3I4xQ" * 10 + "5Q")
_QEMU_KERNEL_GS_BASE = struct.Struct("<Q")
"""Behind the others since QEMU 2.12."""

_VBOX_NAMES = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", *NUMBERED, "rip", "rsp", "rbp", "rflags")
_VBOX_SYSTEM = (
    *("sysenter_cs", "sysenter_eip", "sysenter_esp", "efer", "star"),
    *("lstar", "cstar", "fmask", "kernel_gs_base", "apic_base"),
)
_VBOX_STATE = struct.Struct("<18Q" + "Q2IH6x" * 6 + "4Q4Q16x2Q" + "QI4x" * 2 + "Q2IH6x" * 2 + "5Q8x5Q")
_VBOX_VERSION = 0x10003
"""The first version of this layout; those before hold VirtualBox's own structures."""
_VBOX_LATER, _VBOX_LATER_VERSION = struct.Struct("<2Q"), 0x10006
"""What follows since that version: the MSR TSC_AUX and XCR0."""
_VBOX_UNUSABLE, _PRESENT = 1 << 16, 1 << 7

_PRSTATUS = struct.Struct("<112x27Q")
_PRSTATUS_NAMES = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi"),
    *("orig_rax", "rip", "cs", "rflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs"),
)
_PRSTATUS_AARCH64 = struct.Struct("<112x34Q")
_PRSTATUS_AARCH64_NAMES = (*(f"x{number}" for number in range(31)), "sp", "pc", "pstate")
_PRSTATUS_32 = struct.Struct("<72x17I")
_PRSTATUS_32_NAMES = (
    *("rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rax"),
    *("ds", "es", "fs", "gs", "orig_rax", "rip", "cs", "rflags", "rsp", "ss"),
)


def _saved(names: Sequence[str]) -> tuple[tuple[str, int, int], ...]:
    """What a kernel saves of numbers with these names: general registers, bases, selectors; with a mask of its bits."""
    plain = [(name, names.index(name), (1 << 64) - 1) for name in names if name in (*GENERAL, "fs_base", "gs_base")]
    return *plain, *((f"{name}_selector", names.index(name), 0xFFFF) for name in CODE_AND_DATA)


_SAVED, _SAVED_32 = _saved(_PRSTATUS_NAMES), _saved(_PRSTATUS_32_NAMES)


class _Note(NamedTuple):
    key: tuple[bytes, int]
    content: bytes


def processors(notes: bytes, *, wide: bool, machine: Architecture | None, told: bool = True) -> Processors:
    """The vCPUs of a machine of that architecture, none of another; ``wide`` is whether the file is a 64-bit one.

    If it is not ``told`` what the machine is, QEMU's own note does, which it writes for x86 alone, or the size that an
    NT_PRSTATUS has for AArch64 alone. Raises ``ValueError`` for notes that do not fit together.
    """
    if told and machine is None:
        return Processors()
    found = list(itertools.islice(_walk(notes), 2 * _MAX_COUNT + 1))
    if len(found) > 2 * _MAX_COUNT:
        raise ValueError(f"more than {2 * _MAX_COUNT} notes are more than any machine's")
    if machine is Architecture.AARCH64 or (not told and _sizes(found) == {_AARCH64_SIZE}):
        return _each(found, _NT_PRSTATUS, _of_status_aarch64)
    qemu = _each(found, _QEMU, _of_qemu)
    if qemu.count:
        return replace(qemu, hypervisor=True, producer="QEMU")
    if not told:
        return Processors()
    if any(note.key == _VBCORE for note in found):
        return _of_virtualbox(found)
    if _running(found):
        return Processors()
    return _each(found, _NT_PRSTATUS, _of_status if _wide(found, wide) else _of_status_32)


def _sizes(notes: list[_Note]) -> set[int]:
    return {len(note.content) for note in notes if note.key == _NT_PRSTATUS}


def _wide(notes: list[_Note], wide: bool) -> bool:
    """Whether a 64-bit kernel left them: the class of the file may be the other one."""
    sizes = _sizes(notes)
    return sizes == {_WIDE_SIZE} or (wide and sizes != {_NARROW_SIZE})


def _running(notes: list[_Note]) -> bool:
    """Whether they are those of /proc/kcore, whose NT_PRSTATUS is all zeros, beside a task."""
    return any(note.key == _NT_TASKSTRUCT for note in notes) and not any(
        any(note.content) for note in notes if note.key == _NT_PRSTATUS
    )


def _each(notes: list[_Note], key: tuple[bytes, int], read: Callable[[bytes], VcpuState]) -> Processors:
    """A vCPU for each of these notes."""
    found = [read(note.content) for note in notes if note.key == key]
    return Processors(len(found), found)


def _walk(notes: bytes) -> Iterator[_Note]:
    position = 0
    while position + _NOTE.size <= len(notes):
        name_size, size, kind = _NOTE.unpack_from(notes, position)
        if (name_size, size, kind) == (0, 0, 0):
            return
        begin = position + _NOTE.size + _rounded(name_size)
        if begin + size > len(notes):
            raise ValueError(f"note at {position:#x} of {len(notes):#x} bytes of notes is {size:#x} bytes long")
        name = notes[position + _NOTE.size : position + _NOTE.size + min(name_size, 16)].partition(b"\0")[0]
        yield _Note((name, kind), notes[begin : begin + size])
        position = begin + _rounded(size)


def _rounded(size: int) -> int:
    return -(-size // 4) * 4


def _unpacked(layout: struct.Struct, content: bytes, what: str) -> tuple[int, ...]:
    if len(content) < layout.size:
        raise ValueError(f"{what} has {len(content)} bytes, not {layout.size}")
    return layout.unpack_from(content)


def _x86(values: dict[str, int]) -> VcpuState:
    return VcpuState(Architecture.X86, values)


def _of_qemu(content: bytes) -> VcpuState:
    version, size, *numbers = _unpacked(_QEMU_STATE, content, "the note of QEMU")
    if version != 1:
        raise ValueError(f"the note of QEMU has version {version}")
    values = dict(zip(GENERAL, numbers[:18], strict=True))  # QEMU's order is ours
    for index, name in enumerate((*_SEGMENTS, "gdt", "idt")):
        selector, limit, flags, base = numbers[18 + 4 * index : 22 + 4 * index]
        if selector > 0xFFFF:
            raise ValueError(f"the note of QEMU has {selector:#x} for the selector {name}")
        if name in TABLES:
            values |= {f"{name}_base": base, f"{name}_limit": limit & 0xFFFF}
        else:
            values |= _segment(name, base, limit, selector, attributes(flags >> 8))
    values["cr0"], _, values["cr2"], values["cr3"], values["cr4"] = numbers[58:]
    end = _QEMU_STATE.size + _QEMU_KERNEL_GS_BASE.size
    if min(size, len(content)) >= end:
        (values["kernel_gs_base"],) = _QEMU_KERNEL_GS_BASE.unpack_from(content, _QEMU_STATE.size)
    return _x86(values)


def _segment(name: str, base: int, limit: int, selector: int, rights: int) -> dict[str, int]:
    parts = {"base": base, "limit": limit, "selector": selector, "attributes": rights}
    return {f"{name}_{part}": value for part, value in parts.items()}


def _of_virtualbox(notes: list[_Note]) -> Processors:
    descriptor = next(note.content for note in notes if note.key == _VBCORE)
    magic, version, _, _, _, count = _unpacked(struct.Struct("<6I"), descriptor, "the note VBCORE")
    if magic != 0xC01AC0DE or not 0 < count <= _MAX_COUNT:
        raise ValueError(f"the note VBCORE has magic {magic:#x} and {count} vCPUs")
    if version < _VBOX_VERSION:
        return Processors(count, hypervisor=True, producer="VirtualBox")
    later = version >= _VBOX_LATER_VERSION
    found = [_of_vbcpu(note.content, later) for note in notes if note.key == _VBCPU]
    return Processors(count, found[:count], hypervisor=True, producer="VirtualBox")


def _of_vbcpu(content: bytes, later: bool) -> VcpuState:
    numbers = _unpacked(_VBOX_STATE, content, "the note VBCPU")
    values = dict(zip(_VBOX_NAMES, numbers[:18], strict=True))
    for name, place in zip(_SEGMENTS, (*range(18, 42, 4), 56, 60), strict=True):
        base, limit, rights, selector = numbers[place : place + 4]
        usable = attributes(rights) & ~(_PRESENT if rights & _VBOX_UNUSABLE else 0)
        values |= _segment(name, base, limit, selector, usable)
    values |= zip(("cr0", "cr2", "cr3", "cr4", *DEBUG), numbers[42:52], strict=True)
    for name, place in (("gdt", 52), ("idt", 54)):
        values |= {f"{name}_base": numbers[place], f"{name}_limit": numbers[place + 1] & 0xFFFF}
    values |= zip(_VBOX_SYSTEM, numbers[64:], strict=True)
    if later and len(content) >= _VBOX_STATE.size + _VBOX_LATER.size:
        values["tsc_aux"], values["xcr0"] = _VBOX_LATER.unpack_from(content, _VBOX_STATE.size)
        values["tsc_aux"] &= 0xFFFFFFFF
    return _x86(values)


def _of_status(content: bytes) -> VcpuState:
    numbers = _unpacked(_PRSTATUS, content, "an NT_PRSTATUS")
    return _x86({name: numbers[place] & mask for name, place, mask in _SAVED})


def _of_status_32(content: bytes) -> VcpuState:
    numbers = _unpacked(_PRSTATUS_32, content, "a 32-bit NT_PRSTATUS")
    return _x86({name: numbers[place] & mask for name, place, mask in _SAVED_32})


def _of_status_aarch64(content: bytes) -> VcpuState:
    """General registers, and the stack pointer that the processor's state names: no page tables."""
    numbers = _unpacked(_PRSTATUS_AARCH64, content, "an NT_PRSTATUS")
    values = dict(zip(_PRSTATUS_AARCH64_NAMES, numbers, strict=True))
    level = values["pstate"] >> 2 & 3 if values["pstate"] & 1 else 0
    pointer = {0: "sp_el0", 1: "sp_el1", 2: "sp_el2"}.get(level)
    found = {name: value for name, value in values.items() if name != "sp"}
    return VcpuState(Architecture.AARCH64, found | ({pointer: values["sp"]} if pointer else {}))
