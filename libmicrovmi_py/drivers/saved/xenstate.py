# SPDX-License-Identifier: Apache-2.0
"""The saved state of an x86 HVM or PVH vCPU, as Xen gives and takes it, and registers.

The state is a row of records, each behind a descriptor (type, instance, length). A vCPU's record of registers is laid
out as Xen's public header ``arch-x86/hvm/save.h`` has it, the same since Xen 4.7.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping

from libmicrovmi_py.arch.state import VcpuState, changes
from libmicrovmi_py.arch.x86 import msrs
from libmicrovmi_py.arch.x86.registers import CONTROL, DEBUG, NUMBERED, SEGMENTS, TABLES, WIDTHS
from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.errors import IoError
from libmicrovmi_py.model import Architecture

CPU, LAPIC, LAPIC_REGISTERS, XSAVE = 2, 5, 6, 16
"""Types of records: registers, the local APIC and its page of registers, extended state."""

_HEADER, _END = 1, 0
_DESCRIPTOR = struct.Struct("<HHI")

_GENERAL = ("rax", "rbx", "rcx", "rdx", "rbp", "rsi", "rdi", "rsp", *NUMBERED, "rip", "rflags", *CONTROL, *DEBUG)
_SYSTEM = (
    *("sysenter_cs", "sysenter_esp", "sysenter_eip", "kernel_gs_base", "_"),
    *("lstar", "star", "cstar", "fmask", "efer", "tsc_aux"),
)
_ALL = (*SEGMENTS, *TABLES)
_LAYOUT = [
    (512, "<Q", _GENERAL),
    (736, "<I", [f"{name}_selector" for name in SEGMENTS]),
    (768, "<I", [f"{name}_limit" for name in _ALL]),
    (808, "<Q", [f"{name}_base" for name in _ALL]),
    (888, "<I", [f"{name}_attributes" for name in SEGMENTS]),
    (920, "<Q", _SYSTEM),
]
"""Where in the record which registers are: offset, each as ``struct`` names it, names. Xen's order of segments and
tables is ours, and so are its attributes."""

_PLACES = {
    name: (struct.Struct(form), offset + struct.calcsize(form) * place)
    for offset, form, names in _LAYOUT
    for place, name in enumerate(names)
    if name != "_"
}

CPU_SIZE = 1032

WRITABLE = frozenset(_PLACES)
"""All registers of the record."""

_TASK_PRIORITY, _XCR0 = (LAPIC_REGISTERS, 0x80, "<I"), (XSAVE, 8, "<Q")
_APIC_BASE = (LAPIC, 0, "<Q")

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


def count(state: bytes) -> int:
    """How many vCPUs a saved state is of: one that is offline has a local APIC. Raises as :func:`records`."""
    about_vcpus = (CPU, LAPIC, LAPIC_REGISTERS, XSAVE)
    return max((item.instance + 1 for item in records(state) if item.code in about_vcpus), default=0)


def states(state: bytes, vcpus: Iterable[int]) -> list[VcpuState]:
    """What a saved state tells of vCPUs: nothing of one that is offline."""
    found = {(item.code, item.instance): item.content for item in records(state)}
    return [_state(found, vcpu) for vcpu in vcpus]


def _state(found: Mapping[tuple[int, int], bytes], vcpu: int) -> VcpuState:
    record = found.get((CPU, vcpu), b"")
    if len(record) < CPU_SIZE:
        return VcpuState(Architecture.X86, {})
    known = values(record)
    for name, (code, offset, form) in {"apic_base": _APIC_BASE, "cr8": _TASK_PRIORITY, "xcr0": _XCR0}.items():
        content = found.get((code, vcpu), b"")
        if len(content) >= offset + struct.calcsize(form):
            known[name] = struct.unpack_from(form, content, offset)[0]
    if "cr8" in known:
        known["cr8"] = known["cr8"] >> 4 & 0xF
    return VcpuState(Architecture.X86, known)


def values(record: bytes) -> dict[str, int]:
    """The registers in a vCPU's record, ``CPU_SIZE`` bytes or more."""
    return {
        name: form.unpack_from(record, offset)[0] & (1 << WIDTHS.get(name, 64)) - 1
        for name, (form, offset) in _PLACES.items()
    }


def changed(record: bytes, new: Mapping[str, int]) -> bytes:
    """The record with these registers; everything else stays as it is, and what is not in it is left out."""
    content = bytearray(record)
    for name, value in new.items():
        if name in _PLACES:
            form, offset = _PLACES[name]
            form.pack_into(content, offset, value)
    return bytes(content)


def become(record: bytes, wanted: Mapping[str, int]) -> bytes:
    """The record with what is different in ``wanted``, the values of frozen registers."""
    return changed(record, changes(wanted, values(record)))


def rip(record: bytes) -> int:
    """The instruction pointer."""
    return values(record)["rip"]
