# SPDX-License-Identifier: Apache-2.0
"""Registers out of the notes of an ELF core; kdump files of QEMU carry the same notes.

QEMU writes for each vCPU an NT_PRSTATUS and a note of its own (name QEMU, type 0); VirtualBox writes notes VBCORE and
VBCPU (include/VBox/vmm/dbgfcorefmt.h); a kernel that crashed left an NT_PRSTATUS for each. All little-endian.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence

from libmicrovmi_py.arch.x86.registers import (
    CODE_AND_DATA,
    GENERAL,
    NUMBERED,
    TABLES,
    SegmentReg,
    SystemTableReg,
    X86Registers,
)
from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.dump.contents import Processors

MAX_SIZE = 64 << 20
"""The most bytes that notes may have."""

_MAX_COUNT = 1 << 12
"""The most vCPUs: more than any x86 machine has, and few enough to look at each."""

_NOTE = struct.Struct("<3I")
_NT_PRSTATUS, _QEMU, _VBCORE, _VBCPU = (b"CORE", 1), (b"QEMU", 0), (b"VBCORE", 0xB00), (b"VBCPU", 0xB01)

_SEGMENTS = (*CODE_AND_DATA, "ldt", "tr")

_QEMU_STATE = struct.Struct("<2I18Q" + "3I4xQ" * 10 + "5Q")

_VBOX_NAMES = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", *NUMBERED, "rip", "rsp", "rbp", "rflags")
_VBOX_STATE = struct.Struct("<18Q" + "Q2IH6x" * 6 + "4Q64x" + "QI4x" * 2 + "Q2IH6x" * 2 + "3Q2Q8xQ24xQ")
_VBOX_VERSION = 0x10003
"""The first version of this layout; those before hold VirtualBox's own structures."""

_PRSTATUS = struct.Struct("<112x27Q")
_PRSTATUS_NAMES = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi"),
    *("orig_rax", "rip", "cs", "rflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs"),
)
_PRSTATUS_32 = struct.Struct("<72x17I")
_PRSTATUS_32_NAMES = (
    *("rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rax"),
    *("ds", "es", "fs", "gs", "orig_rax", "rip", "cs", "rflags", "rsp", "ss"),
)


class _Note(NamedTuple):
    key: tuple[bytes, int]
    content: bytes


def processors(notes: bytes, *, wide: bool, x86: bool | None) -> Processors:
    """The vCPUs of an x86 machine, none of another; ``wide`` is whether the file is a 64-bit one.

    ``x86`` is whether it is of such a machine, ``None`` if it does not say: then QEMU's own note does, which it writes
    for no other. Raises ``ValueError`` for notes that do not fit together.
    """
    if x86 is False:
        return Processors()
    found = list(itertools.islice(_walk(notes), 2 * _MAX_COUNT + 1))
    if len(found) > 2 * _MAX_COUNT:
        raise ValueError(f"more than {2 * _MAX_COUNT} notes are more than any machine's")
    qemu = [_of_qemu(note.content) for note in found if note.key == _QEMU]
    if qemu:
        return Processors(len(qemu), qemu, hypervisor=True)
    if x86 is None:
        return Processors()
    if any(note.key == _VBCORE for note in found):
        return _of_virtualbox(found)
    of_status = _of_status if wide else _of_status_32
    status = [of_status(note.content) for note in found if note.key == _NT_PRSTATUS]
    return Processors(len(status), status)


def _walk(notes: bytes) -> Iterator[_Note]:
    position = 0
    while position + _NOTE.size <= len(notes):
        name_size, size, kind = _NOTE.unpack_from(notes, position)
        if (name_size, size, kind) == (0, 0, 0):
            return
        begin = position + _NOTE.size + _rounded(name_size)
        if begin + size > len(notes):
            raise ValueError(f"note at {position:#x} of {len(notes):#x} bytes of notes is {size:#x} bytes long")
        name = notes[position + _NOTE.size :][: min(name_size, 16)].partition(b"\0")[0]
        yield _Note((name, kind), notes[begin : begin + size])
        position = begin + _rounded(size)


def _rounded(size: int) -> int:
    return -(-size // 4) * 4


def _unpacked(layout: struct.Struct, content: bytes, what: str) -> tuple[int, ...]:
    if len(content) < layout.size:
        raise ValueError(f"{what} has {len(content)} bytes, not {layout.size}")
    return layout.unpack_from(content)


def _general(names: Sequence[str], values: Sequence[int]) -> X86Registers:
    registers = X86Registers()
    for name, value in zip(names, values, strict=True):
        setattr(registers, name, value)
    return registers


def _of_qemu(content: bytes) -> X86Registers:
    version, _, *values = _unpacked(_QEMU_STATE, content, "the note of QEMU")
    if version != 1:
        raise ValueError(f"the note of QEMU has version {version}")
    registers = _general(GENERAL, values[:18])  # QEMU's order is ours
    for index, name in enumerate((*_SEGMENTS, "gdt", "idt")):
        selector, limit, _, base = values[18 + 4 * index : 22 + 4 * index]
        if selector > 0xFFFF:
            raise ValueError(f"the note of QEMU has {selector:#x} for the selector {name}")
        if name in TABLES:
            setattr(registers, name, SystemTableReg(base, limit & 0xFFFF))
        else:
            setattr(registers, name, SegmentReg(base, limit, selector))
    registers.cr0, _, registers.cr2, registers.cr3, registers.cr4 = values[58:]
    return registers


def _of_virtualbox(notes: list[_Note]) -> Processors:
    descriptor = next(note.content for note in notes if note.key == _VBCORE)
    magic, version, _, _, _, count = _unpacked(struct.Struct("<6I"), descriptor, "the note VBCORE")
    if magic != 0xC01AC0DE or not 0 < count <= _MAX_COUNT:
        raise ValueError(f"the note VBCORE has magic {magic:#x} and {count} vCPUs")
    if version < _VBOX_VERSION:
        return Processors(count, hypervisor=True)
    return Processors(count, [_of_vbcpu(note.content) for note in notes if note.key == _VBCPU][:count], hypervisor=True)


def _of_vbcpu(content: bytes) -> X86Registers:
    values = _unpacked(_VBOX_STATE, content, "the note VBCPU")
    registers = _general(_VBOX_NAMES, values[:18])
    for name, place in zip(_SEGMENTS, (*range(18, 42, 4), 50, 54), strict=True):
        base, limit, _, selector = values[place : place + 4]
        setattr(registers, name, SegmentReg(base, limit, selector))
    registers.cr0, registers.cr2, registers.cr3, registers.cr4 = values[42:46]
    registers.gdt, registers.idt = (SystemTableReg(values[place], values[place + 1] & 0xFFFF) for place in (46, 48))
    registers.sysenter_cs, registers.sysenter_eip, registers.sysenter_esp = values[58:61]
    registers.msr_efer, registers.msr_star, registers.msr_lstar, registers.apic_base = values[61:]
    registers.efer = registers.msr_efer
    return registers


def _of_status(content: bytes) -> X86Registers:
    values = dict(zip(_PRSTATUS_NAMES, _unpacked(_PRSTATUS, content, "an NT_PRSTATUS"), strict=True))
    return _registers(values, values["fs_base"], values["gs_base"])


def _of_status_32(content: bytes) -> X86Registers:
    values = _unpacked(_PRSTATUS_32, content, "a 32-bit NT_PRSTATUS")
    return _registers(dict(zip(_PRSTATUS_32_NAMES, values, strict=True)), 0, 0)


def _registers(values: dict[str, int], fs_base: int, gs_base: int) -> X86Registers:
    """What a kernel saves: the general registers and the selectors, no control registers."""
    bases = {"fs": fs_base, "gs": gs_base}
    registers = X86Registers()
    for name, value in values.items():
        if name in _SEGMENTS:
            setattr(registers, name, SegmentReg(bases.get(name, 0), 0, value & 0xFFFF))
        elif hasattr(registers, name):
            setattr(registers, name, value)
    return registers
