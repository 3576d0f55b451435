# SPDX-License-Identifier: Apache-2.0
"""What Xen says in an entry of the ring of events, and what it is answered: the public header ``vm_event.h``.

An entry: version, flags, reason, vCPU, the view of memory; 32 bytes that depend on the reason; the vCPU's registers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from libmicrovmi_py.arch.x86.registers import ENCODED
from libmicrovmi_py.declare import Any, NamedTuple
from libmicrovmi_py.errors import NotSupportedError
from libmicrovmi_py.events import UNKNOWN_ADDRESS, EventKind, PageAccess, Stop
from libmicrovmi_py.model import PAGE_SHIFT, PAGE_SIZE

SIZES = {6: 384, 7: 400}
"""Bytes of an entry, by the version of the interface; 7 is that of Xen 4.17."""

PAUSED, EMULATE, SET_REGISTERS = 1 << 0, 1 << 2, 1 << 8
"""Flags: the vCPU is stopped, or is to go on; the instruction is to be emulated; the registers are to be set."""

CR_INDEXES = {0: 0, 3: 1, 4: 2}
"""Control registers as events name them."""

_HEAD = struct.Struct("<IIIIHHHH")
_REASON, _REGISTERS = 24, 56
_GENERAL = (*ENCODED, "rflags")
_RIP = _REGISTERS + 19 * 8
_CRS = {index: number for number, index in CR_INDEXES.items()}
_MEMORY, _CR, _MSR, _BREAKPOINT, _STEP = 1, 4, 5, 6, 7
_ADDRESS_TOLD = 1 << 3


def entry_size(version: int) -> int:
    """Bytes of an entry. Raises ``NotSupportedError`` for a version of the interface that is not known."""
    if version not in SIZES:
        raise NotSupportedError(f"events: this Xen speaks version {version} of them; known are {sorted(SIZES)}")
    return SIZES[version]


class Request(NamedTuple):
    """An entry that Xen wrote."""

    raw: bytes

    @property
    def vcpu(self) -> int:
        """The vCPU's number."""
        return int(_HEAD.unpack_from(self.raw)[3])

    @property
    def waits(self) -> bool:
        """Whether the vCPU is stopped until it is answered."""
        return bool(_HEAD.unpack_from(self.raw)[1] & PAUSED)

    @property
    def rip(self) -> int:
        """Where the instruction is that the event is about."""
        return int(struct.unpack_from("<Q", self.raw, _RIP)[0])

    @property
    def breakpoint(self) -> tuple[int, int]:
        """Of a breakpoint: the length of the instruction, and what kind of exception it is to Xen."""
        length, kind = struct.unpack_from("<IB", self.raw, _REASON + 16)
        return length, kind

    def stop(self) -> Stop | None:
        """As a stop with this as its token, ``None`` for what nobody can have asked for."""
        reader = _READERS.get(_HEAD.unpack_from(self.raw)[2])
        return reader(self) if reader else None

    def answer(self, flags: int = 0, registers: Mapping[str, int] | None = None) -> bytes:
        """The entry to answer with: the same, with flags of ours, and with registers if they are to be set."""
        head = list(_HEAD.unpack_from(self.raw))
        head[1] = head[1] & PAUSED | flags | (SET_REGISTERS if registers else 0)
        raw = bytearray(self.raw)
        _HEAD.pack_into(raw, 0, *head)
        if registers:
            struct.pack_into("<17Q", raw, _REGISTERS, *(registers[name] for name in _GENERAL))
            struct.pack_into("<Q", raw, _RIP, registers["rip"])
        return bytes(raw)

    def body(self, form: str) -> tuple[int, ...]:
        return struct.unpack_from(form, self.raw, _REASON)


def release(version: int, vcpu: int) -> bytes:
    """A response to no request of ours: it lets a vCPU go on that waits for an answer, and no other."""
    return _HEAD.pack(version, PAUSED, _CR, vcpu, 0, 0, 0, 0).ljust(entry_size(version), b"\0")


def _stop(request: Request, kind: EventKind, **members: Any) -> Stop:
    return Stop(kind, request.vcpu, waits=request.waits, token=request, **members)


def _cr(request: Request) -> Stop | None:
    index, _, new, old = request.body("<IIQQ")
    if index not in _CRS:
        return None
    return _stop(request, EventKind.CR, number=_CRS[index], old_value=old, new_value=new)


def _msr(request: Request) -> Stop:
    index, new, old = request.body("<QQQ")
    return _stop(request, EventKind.MSR, number=index, old_value=old, new_value=new)


def _breakpoint(request: Request) -> Stop:
    return _at_instruction(request, EventKind.BREAKPOINT, instruction_length=request.breakpoint[0])


def _step(request: Request) -> Stop:
    return _at_instruction(request, EventKind.SINGLE_STEP)


def _at_instruction(request: Request, kind: EventKind, instruction_length: int = 0) -> Stop:
    return _stop(
        request,
        kind,
        physical_address=(request.body("<Q")[0] << PAGE_SHIFT) + request.rip % PAGE_SIZE,
        virtual_address=request.rip,
        instruction_length=instruction_length,
    )


def _memory(request: Request) -> Stop:
    gfn, offset, address, flags = request.body("<QQQI")
    return _stop(
        request,
        EventKind.PAGE_ACCESS,
        physical_address=(gfn << PAGE_SHIFT) + offset,
        virtual_address=address if flags & _ADDRESS_TOLD else UNKNOWN_ADDRESS,
        access=PageAccess(flags & PageAccess.ALL),
    )


_READERS: dict[int, Callable[[Request], Stop | None]] = {
    _MEMORY: _memory,
    _CR: _cr,
    _MSR: _msr,
    _BREAKPOINT: _breakpoint,
    _STEP: _step,
}
