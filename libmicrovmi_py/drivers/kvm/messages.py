# SPDX-License-Identifier: Apache-2.0
"""What KVMi's events and the answers to them say."""

from __future__ import annotations

import struct

from libmicrovmi_py.declare import Any, NamedTuple
from libmicrovmi_py.drivers.kvm import abi
from libmicrovmi_py.drivers.kvm.library import Domain
from libmicrovmi_py.events import Breakpoints, EventAbilities, EventKind, InterceptFlag, PageAccess, ReplyAction, Stop

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


_WRITES = (EventKind.CR, EventKind.MSR)
_DENIED = frozenset({ReplyAction.CONTINUE, ReplyAction.DENY})
_REPEATED = frozenset({ReplyAction.CONTINUE, ReplyAction.RETRY})

ANSWERS = {kind: _DENIED if kind in _WRITES else _REPEATED for kind in KINDS}
"""The answers to each kind of event, with a libkvmi that has them all."""

_NO_RANGES = "a range may be mapped elsewhere at any time, so VIRTUAL_ACCESS would miss some: intercept PAGE_ACCESS"


def abilities(domain: Domain) -> EventAbilities:
    """What KVMi can stop vCPUs at."""
    own = frozenset({Breakpoints.OWN})
    every = InterceptFlag.EVERY_WRITE
    kinds, why_not = dict(ANSWERS), _NO_RANGES
    if not domain.has("kvmi_control_singlestep"):
        del kinds[EventKind.SINGLE_STEP]
        why_not = f"this version of libkvmi has no single-step; {_NO_RANGES}"
    return EventAbilities(kinds, own, why_not, flags={EventKind.CR: every}, implied=every)


class Message(NamedTuple):
    """An event that a vCPU sent and waits for the answer to: the message's number, its kind's number, the vCPU."""

    seq: int
    number: int
    vcpu: int


def message_of(event: Any) -> Message:
    """What every event of libkvmi's tells."""
    return Message(event.seq, event.event, event.vcpu)


def stop_of(event: Any) -> Stop | None:
    """Our word for libkvmi's event, with its message as the token; ``None`` for one that nobody can have asked for."""
    kind = _KINDS_BY_NUMBER.get(event.event)
    if kind is None:
        return None
    return Stop(kind, event.vcpu, **_details(kind, event), token=message_of(event))


def _details(kind: EventKind, event: Any) -> dict[str, Any]:
    if kind in _WRITES:
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


def go_on(message: Message) -> bytes:
    """The answer that only lets a vCPU go on, for events that need no more."""
    return _HEAD.pack(message.vcpu, 0, abi.ACTION_CONTINUE, message.number, 0)


def answer(stop: Stop, action: ReplyAction) -> bytes:
    """The answer to a stop, one of :data:`ANSWERS`."""
    number = KINDS[stop.kind]
    if stop.kind in _WRITES:
        value = stop.old_value if action is ReplyAction.DENY else stop.new_value
        return _HEAD.pack(stop.vcpu, 0, abi.ACTION_CONTINUE, number, 0) + value.to_bytes(8, "little")
    again = action is ReplyAction.RETRY and stop.kind is not EventKind.SINGLE_STEP
    head = _HEAD.pack(stop.vcpu, 0, abi.ACTION_RETRY if again else abi.ACTION_CONTINUE, number, 0)
    return head + bytes(abi.PF_REPLY_SIZE if stop.kind is EventKind.PAGE_ACCESS else 0)
