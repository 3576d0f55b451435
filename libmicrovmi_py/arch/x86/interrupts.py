# SPDX-License-Identifier: Apache-2.0
"""Interrupts in 64-bit mode: where a handler is, and what the processor leaves on the stack for it."""

from __future__ import annotations

import struct

from libmicrovmi_py.declare import NamedTuple

BREAKPOINT = 3
"""The number of the exception that ``int3`` raises."""

GATE_SIZE = 16
_TYPES = (0xE, 0xF)
"""Gates of interrupts and of traps."""

_PRESENT, _TYPE = 0x80, 0x1F
FRAME_SIZE = 40


class Frame(NamedTuple):
    """What a handler of an exception without an error code finds on its stack."""

    rip: int
    cs_selector: int
    rflags: int
    rsp: int
    ss_selector: int


def handler(gate: bytes) -> int | None:
    """The address that a gate of the interrupts' table leads to; ``None``: it leads nowhere."""
    if len(gate) != GATE_SIZE or not gate[5] & _PRESENT or gate[5] & _TYPE not in _TYPES:
        return None
    low, _, _, _, middle, high = struct.unpack("<HHBBHI", gate[:12])
    return int(low | middle << 16 | high << 32)


def frame(data: bytes) -> Frame | None:
    """Of ``FRAME_SIZE`` bytes at the stack pointer; ``None``: no processor has left that there."""
    if len(data) != FRAME_SIZE:
        return None
    rip, cs, rflags, rsp, ss = struct.unpack("<5Q", data)
    if cs >> 16 or ss >> 16 or not cs & ~7 or rflags >> 32 or not rflags & 2:
        return None
    return Frame(rip, cs, rflags, rsp, ss)
