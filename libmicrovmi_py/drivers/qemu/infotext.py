# SPDX-License-Identifier: Apache-2.0
"""Registers out of the text of ``info registers``, by the names that a vCPU's state has."""

from __future__ import annotations

import re
from collections.abc import Mapping

from libmicrovmi_py.arch.aarch64.registers import stack_of
from libmicrovmi_py.arch.x86.registers import CONTROL, DEBUG, GENERAL, NUMBERED, SEGMENTS
from libmicrovmi_py.errors import IoError
from libmicrovmi_py.transport.shape import decimal, hexadecimal

_VCPU = re.compile(r"^CPU#([0-9]+)$", re.MULTILINE)
_HIGHEST_INDEX = (1 << 31) - 1

_VALUE = re.compile(r"([A-Z][A-Z0-9]{1,3}) ?=([0-9a-f]{8,})")
_SEGMENT = re.compile(r"^([A-Z]{2,3}) ?=([0-9a-f]{4}) ([0-9a-f]+) ([0-9a-f]+)(?: ([0-9a-f]{8})\b)?", re.MULTILINE)
_TABLE = re.compile(r"^([GI]DT)= +([0-9a-f]+) ([0-9a-f]+)", re.MULTILINE)
_FLOATING = "\nFCW="
"""Where what is of interest here is over."""

_WIDE = {name.upper(): name for name in (*GENERAL, *CONTROL, *DEBUG)}
_HALVES = {f"E{name[1:].upper()}": name for name in GENERAL if name not in NUMBERED}
_NAMES = {**_WIDE, **_HALVES, "EFL": "rflags", "RFL": "rflags", "EFER": "efer"}

_USUAL_DEBUG = (
    "\nDR0={dr0:016x} DR1={dr1:016x} DR2={dr2:016x} DR3={dr3:016x}",
    "\nDR6={dr6:016x} DR7={dr7:016x}\n",
    "\nEFER={efer:016x}\n",
)
_USUAL_64 = (
    "RAX={rax:016x} RBX={rbx:016x} RCX={rcx:016x} RDX={rdx:016x}\nRSI={rsi:016x} RDI={rdi:016x} RBP={rbp:016x} "
    "RSP={rsp:016x}\nR8 ={r8:016x} R9 ={r9:016x} R10={r10:016x} R11={r11:016x}\nR12={r12:016x} R13={r13:016x} "
    "R14={r14:016x} R15={r15:016x}\nRIP={rip:016x} RFL=",
    "\nGDT=     {gdt_base:016x} {gdt_limit:08x}\nIDT=     {idt_base:016x} {idt_limit:08x}\n"
    "CR0={cr0:08x} CR2={cr2:016x} CR3={cr3:016x} CR4={cr4:08x}\n",
    *_USUAL_DEBUG,
)
_USUAL_32 = (
    "EAX={rax:08x} EBX={rbx:08x} ECX={rcx:08x} EDX={rdx:08x}\nESI={rsi:08x} EDI={rdi:08x} EBP={rbp:08x} "
    "ESP={rsp:08x}\nEIP={rip:08x} EFL=",
    "\nGDT=     {gdt_base:08x} {gdt_limit:08x}\nIDT=     {idt_base:08x} {idt_limit:08x}\n"
    "CR0={cr0:08x} CR2={cr2:08x} CR3={cr3:08x} CR4={cr4:08x}\n",
    *_USUAL_DEBUG,
)
"""How QEMU has printed registers for years, by the mode of the vCPU."""

_AARCH64 = re.compile(r"\b(PC|SP|X[0-9]{2}|PSTATE)=([0-9a-f]{8,16})\b")
_MODE_BITS = 1 << 4
"""Of pstate: the vCPU executes AArch32."""


def by_vcpu(text: str) -> dict[int, str]:
    """The text of each vCPU, by QEMU's number, out of that of ``info registers -a``."""
    parts = _VCPU.split(text)
    numbers = [decimal(digits, _HIGHEST_INDEX) for digits in parts[1::2]]
    return {number: part for number, part in zip(numbers, parts[2::2], strict=True) if number is not None}


def is_narrow(text: str) -> bool:
    """Whether an x86 vCPU is in a 32-bit mode: QEMU then prints the lower halves only."""
    return "EIP=" in text


def parse_x86(text: str) -> dict[str, int]:
    """The registers of an x86 vCPU, in the 64-bit form of the text or in the 32-bit one; empty if it has none of them.

    In 32-bit modes, those of a 64-bit vCPU included, QEMU prints the lower halves of the first eight general
    registers. Raises ``IoError`` for a value that no register can hold.
    """
    values = parse_x86_core(text)
    for line in _SEGMENT.findall(text) if values else ():
        values |= _segment(*line)
    return values


def parse_x86_core(text: str) -> dict[str, int]:
    """As :func:`parse_x86`, without the segments, in half the time."""
    text = text.partition(_FLOATING)[0]
    values = {_NAMES[name]: int(digits, 16) for name, digits in _VALUE.findall(text) if name in _NAMES}
    if "rip" not in values:
        return {}
    if max(values.values()) >> 64:
        raise IoError("QEMU tells a value that no register can hold")
    for name, base, limit in _TABLE.findall(text):
        values[f"{name.lower()}_base"] = hexadecimal(base, name)
        values[f"{name.lower()}_limit"] = hexadecimal(limit, name) & 0xFFFF
    return values


def is_usual_x86(text: str, values: Mapping[str, int]) -> bool:
    """Whether the text is the usual one for these values; if not it may be one for them all the same.

    A fifth of the work of :func:`parse_x86_core`.
    """
    try:
        return all(part.format_map(values) in text for part in (_USUAL_32 if is_narrow(text) else _USUAL_64))
    except LookupError:
        return False


def _segment(name: str, selector: str, base: str, limit: str, flags: str) -> dict[str, int]:
    """What a line tells of a segment; QEMU leaves the flags out where it knows none."""
    register = name.lower()
    if register not in SEGMENTS:
        return {}
    values = {
        f"{register}_selector": hexadecimal(selector, name, 16),
        f"{register}_base": hexadecimal(base, name),
        f"{register}_limit": hexadecimal(limit, name, 32),
    }
    return {**values, f"{register}_attributes": attributes(hexadecimal(flags, name, 32))} if flags else values


def attributes(flags: int) -> int:
    """The attributes of a segment out of what QEMU keeps: the upper half of its descriptor, without base and limit."""
    return flags >> 8 & 0xFF | flags >> 12 & 0xF00


def parse_aarch64(text: str) -> dict[str, int]:
    """The registers of an AArch64 vCPU; empty for one of another architecture, and while it executes AArch32.

    The stack pointer is that of the present mode. Raises ``IoError`` for a value that no register can hold.
    """
    found = {name.lower(): hexadecimal(value, name) for name, value in _AARCH64.findall(text)}
    pstate = found.pop("pstate", _MODE_BITS)
    if "pc" not in found or pstate & _MODE_BITS:
        return {}
    values = {f"x{int(name[1:])}" if name[0] == "x" else name: value for name, value in found.items()}
    stack = values.pop("sp", None)
    level = stack_of(pstate)
    if stack is not None and level < 2:  # others are registers of processors that have these levels
        values[f"sp_el{level}"] = stack
    return {**values, "pstate": pstate}
