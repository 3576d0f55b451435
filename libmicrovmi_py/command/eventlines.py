# SPDX-License-Identifier: Apache-2.0
"""An event as a line, and as what ``--json`` prints."""

from __future__ import annotations

from collections.abc import Mapping

from libmicrovmi_py.command.guestnames import GuestNames, Process
from libmicrovmi_py.events import UNKNOWN_ADDRESS, UNKNOWN_VCPU, Event, EventKind, PageAccess

_CR3 = 3
_LETTERS = {PageAccess.READ: "r", PageAccess.WRITE: "w", PageAccess.EXECUTE: "x"}


def document(event: Event, names: GuestNames, seconds: float) -> dict[str, object]:
    """All that is known of it; ``seconds`` since the first was waited for."""
    vcpu = None if event.vcpu == UNKNOWN_VCPU else event.vcpu
    found: dict[str, object] = {"seconds": round(seconds, 6), "event": event.kind.name.lower(), "vcpu": vcpu}
    if event.kind in (EventKind.CR, EventKind.MSR):
        number: object = event.number if event.kind is EventKind.CR else f"{event.number:#x}"
        found |= {"number": number, "old": f"{event.old_value:#x}", "new": f"{event.new_value:#x}"}
    else:
        found |= {"address": _address(event.virtual_address), "symbol": _symbol(event.virtual_address, names)}
    if event.kind is EventKind.VIRTUAL_ACCESS:
        found["access"] = "".join(letter for flag, letter in _LETTERS.items() if flag in event.access)
    if event.instruction_pointer != UNKNOWN_ADDRESS:
        found["instruction"] = _address(event.instruction_pointer)
        found["instruction_symbol"] = _symbol(event.instruction_pointer, names)
    process = _process(event, names)
    found["process"] = None if process is None else process._asdict()
    if event.lost:
        found["lost"] = event.lost
    return found


def line(told: Mapping[str, object]) -> str:
    """A document as a line, which is not safe for a terminal yet."""
    vcpu = "vcpu ?" if told["vcpu"] is None else f"vcpu {told['vcpu']}"
    words = [f"{told['seconds']:12.6f}  {vcpu}", f"{_what(told):12}"]
    if "new" in told:
        words.append(f"{told['old']} -> {told['new']}")
    else:
        words.append(_place(told["address"], told["symbol"]))
    if "instruction" in told and told["instruction"] != told.get("address"):
        words.append(f"at {_place(told['instruction'], told['instruction_symbol'])}")
    if isinstance(process := told["process"], dict):
        words.append(f"{process['name']} {process['pid']}")
    if "lost" in told:
        words.append(f"({told['lost']} lost before)")
    return "  ".join(words)


def _what(told: Mapping[str, object]) -> str:
    """The word of a line for what happened."""
    if told["event"] == "cr":
        return f"cr{told['number']}"
    if told["event"] == "msr":
        return f"msr {told['number']}"
    return f"access {told['access']}" if "access" in told else str(told["event"])


def _place(address: object, symbol: object) -> str:
    return f"{address or '?'} <{symbol}>" if symbol else f"{address or '?'}"


def _address(address: int) -> str | None:
    return None if address == UNKNOWN_ADDRESS else f"{address:#x}"


def _symbol(address: int, names: GuestNames) -> str | None:
    return None if address == UNKNOWN_ADDRESS else names.symbol(address)


def _process(event: Event, names: GuestNames) -> Process | None:
    """Whose an address space that a vCPU changes to is, else what the vCPU is at."""
    if event.kind is EventKind.CR and event.number == _CR3:
        return names.owner(event.new_value)
    return None if event.vcpu == UNKNOWN_VCPU else names.running(event.vcpu)
