# SPDX-License-Identifier: Apache-2.0
"""The saved state of an x86 HVM or PVH vCPU, as Xen gives and takes it, and registers.

The state is a row of records, each behind a descriptor (type, instance, length). A vCPU's record of registers is laid
out as Xen's public header ``arch-x86/hvm/save.h`` has it, the same since Xen 4.7.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from libmicrovmi_py.arch.x86 import msrs
from libmicrovmi_py.arch.x86.registers import (
    CONTROL,
    NUMBERED,
    SEGMENTS,
    SYSTEM,
    TABLES,
    SegmentReg,
    SystemTableReg,
    X86Registers,
)
from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.errors import InvalidArgumentError, IoError

CPU, LAPIC = 2, 5
"""Types of records."""

LAPIC_SIZE = 24

_HEADER, _END = 1, 0
_DESCRIPTOR = struct.Struct("<HHI")

_GENERAL = ("rax", "rbx", "rcx", "rdx", "rbp", "rsi", "rdi", "rsp", *NUMBERED, "rip", "rflags", *CONTROL)
_SYSTEM = (
    *("sysenter_cs", "sysenter_esp", "sysenter_eip", "kernel_gs_base", "_"),
    *("msr_lstar", "msr_star", "msr_cstar", "msr_fmask", "msr_efer"),
)
_ALL = (*SEGMENTS, *TABLES)
_LAYOUT = [
    (512, "Q", _GENERAL),
    (736, "I", [f"{name}.selector" for name in SEGMENTS]),
    (768, "I", [f"{name}.limit" for name in _ALL]),
    (808, "Q", [f"{name}.base" for name in _ALL]),
    (920, "Q", _SYSTEM),
]
"""Where in the record which registers are: offset, size of each as ``struct`` names it, names. Xen's order of segments
and tables is ours."""

CPU_SIZE = 1032

_KEPT = set(_SYSTEM) - set(SYSTEM)
"""What the record has and ``X86Registers`` has not."""

_16_BITS = 0xFFFF
"""The width of selectors and of limits of tables, for which the record has room for 32."""

MSRS = {msrs.INDEXES[name]: name for name in _SYSTEM if name in msrs.INDEXES}
"""The model-specific registers that the record has, by their index."""


class Record(NamedTuple):
    """One record: its type, the vCPU (or device) that it is about, its bytes."""

    code: int
    instance: int
    content: bytes

    def packed(self) -> bytes:
        """With its descriptor."""
        return _DESCRIPTOR.pack(self.code, self.instance, len(self.content)) + self.content


def records(state: bytes) -> Iterator[Record]:
    """The records of a saved state. Raises ``IoError`` for one that is cut off."""
    offset = 0
    while offset + _DESCRIPTOR.size <= len(state):
        code, instance, length = _DESCRIPTOR.unpack_from(state, offset)
        offset += _DESCRIPTOR.size
        if code == _END:
            return
        if offset + length > len(state):
            break
        yield Record(code, instance, state[offset : offset + length])
        offset += length
    raise IoError("the vCPU state that Xen gave has no end")


def only(state: bytes, vcpu: int) -> tuple[Record, Record]:
    """The header and the registers of one vCPU: all that Xen takes to load these. Raises ``IoError`` without them."""
    found = list(records(state))
    header = next((item for item in found if item.code == _HEADER), None)
    cpu = next((item for item in found if item.code == CPU and item.instance == vcpu), None)
    if header is None or cpu is None or len(cpu.content) < CPU_SIZE:
        raise IoError(f"Xen gave no registers for vCPU {vcpu}: it is offline")
    return header, cpu


def packed(header: Record, cpu: Record) -> bytes:
    """A state that holds one vCPU's registers and nothing else: devices and timers stay as they are."""
    return header.packed() + cpu.packed() + Record(_END, 0, b"").packed()


def registers(record: bytes, apic_base: int = 0) -> X86Registers:
    """The registers in a vCPU's record, ``CPU_SIZE`` bytes or more."""
    values = _values(record)
    found = X86Registers(apic_base=apic_base, efer=values["msr_efer"])
    for name, value in values.items():
        if "." not in name and name not in _KEPT:
            setattr(found, name, value)
    for name in SEGMENTS:
        base, limit, selector = (values[f"{name}.{part}"] for part in ("base", "limit", "selector"))
        setattr(found, name, SegmentReg(base, limit, selector & _16_BITS))
    for name in TABLES:
        setattr(found, name, SystemTableReg(values[f"{name}.base"], values[f"{name}.limit"] & _16_BITS))
    return found


def changed(record: bytes, wanted: X86Registers) -> bytes:
    """The record with what is different in ``wanted``; everything else stays as it is.

    Of ``efer`` and ``msr_efer``, the one that is different counts. The APIC base is not in the record.
    """
    values, now = _values(record), registers(record)
    if wanted.efer != now.efer:
        values["msr_efer"] = wanted.efer
    for name in values:
        new = None if name in _KEPT else _member(wanted, name)
        if new is not None and new != _member(now, name):
            values[name] = new
    return _patched(record, values)


def _member(source: X86Registers, name: str) -> int:
    part, _, field = name.partition(".")
    value: int = getattr(getattr(source, part), field) if field else getattr(source, name)
    return value


def rip(record: bytes) -> int:
    """The instruction pointer."""
    return _values(record)["rip"]


def with_value(record: bytes, name: str, value: int) -> bytes:
    """The record with one register changed."""
    return _patched(record, {**_values(record), name: value})


def _values(record: bytes) -> dict[str, int]:
    return {
        name: value
        for offset, form, names in _LAYOUT
        for name, value in zip(names, struct.unpack_from(f"<{len(names)}{form}", record, offset), strict=True)
    }


def _patched(record: bytes, values: dict[str, int]) -> bytes:
    """Put values in, and keep the bytes between them."""
    content = bytearray(record)
    for offset, form, names in _LAYOUT:
        try:
            struct.pack_into(f"<{len(names)}{form}", content, offset, *(values[name] for name in names))
        except struct.error as err:
            raise InvalidArgumentError(f"a register's value does not fit: {err}") from err
    return bytes(content)
