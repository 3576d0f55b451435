# SPDX-License-Identifier: Apache-2.0
"""What KVMi's events and the answers to them say."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from libmicrovmi_py.drivers.kvm import abi
from libmicrovmi_py.errors import NotSupportedError
from libmicrovmi_py.events import Event, EventKind, PageAccess, ReplyAction

KINDS = {
    EventKind.CR: abi.EVENT_CR,
    EventKind.MSR: abi.EVENT_MSR,
    EventKind.BREAKPOINT: abi.EVENT_BREAKPOINT,
    EventKind.PAGE_ACCESS: abi.EVENT_PF,
    EventKind.SINGLE_STEP: abi.EVENT_SINGLESTEP,
}
_KINDS_BY_NUMBER = {number: kind for kind, number in KINDS.items()}

_HEAD = struct.Struct("<H2xI BB2xI")
"""vCPU, padding; action, number of the event, padding."""


class Stop(NamedTuple):
    """A vCPU that is stopped: the number of the event's message, its kind's number, the vCPU."""

    seq: int
    number: int
    vcpu: int


def stop_of(event: Any) -> Stop:
    """What every event tells."""
    return Stop(event.seq, event.event, event.vcpu)


def read_event(event: Any, identity: int) -> Event | None:
    """Our word for libkvmi's event; ``None`` for one that nobody has asked for."""
    kind = _KINDS_BY_NUMBER.get(event.event)
    if kind is None:
        return None
    return Event(identity, kind, event.vcpu, **_details(kind, event))


def _details(kind: EventKind, event: Any) -> dict[str, Any]:
    if kind in (EventKind.CR, EventKind.MSR):
        write = event.detail.write
        number = write.number & 0xFFFF if kind is EventKind.CR else write.number  # the rest is padding
        return {"number": number, "old_value": write.old_value, "new_value": write.new_value}
    if kind is EventKind.PAGE_ACCESS:
        fault = event.detail.page_fault
        tried = PageAccess(fault.access & PageAccess.ALL)
        return {"physical_address": fault.gpa, "virtual_address": fault.gva, "access": tried}
    where = {"virtual_address": (event.sregs.cs.base + event.regs.rip) & 0xFFFFFFFFFFFFFFFF}
    if kind is EventKind.BREAKPOINT:
        breakpoint_ = event.detail.breakpoint
        where.update(physical_address=breakpoint_.gpa, instruction_length=breakpoint_.length)
    return where


def go_on(stop: Stop) -> bytes:
    """The answer that only lets a vCPU go on, for events that need no more."""
    return _HEAD.pack(stop.vcpu, 0, abi.ACTION_CONTINUE, stop.number, 0)


def answer(event: Event, action: ReplyAction) -> bytes:
    """The answer to an event. Raises ``NotSupportedError`` for one that its kind does not have."""
    number = KINDS[event.kind]
    if event.kind in (EventKind.CR, EventKind.MSR):
        if action is ReplyAction.RETRY:
            raise NotSupportedError(f"KVMi has no RETRY for {event.kind.name} events, use CONTINUE or DENY")
        value = event.old_value if action is ReplyAction.DENY else event.new_value
        return _HEAD.pack(event.vcpu, 0, abi.ACTION_CONTINUE, number, 0) + value.to_bytes(8, "little")
    if action is ReplyAction.DENY:
        raise NotSupportedError(f"KVMi has no DENY for {event.kind.name} events, use CONTINUE or RETRY")
    again = action is ReplyAction.RETRY and event.kind is not EventKind.SINGLE_STEP
    head = _HEAD.pack(event.vcpu, 0, abi.ACTION_RETRY if again else abi.ACTION_CONTINUE, number, 0)
    return head + bytes(abi.PF_REPLY_SIZE if event.kind is EventKind.PAGE_ACCESS else 0)
