# SPDX-License-Identifier: Apache-2.0
"""The instructions of 64-bit x86 that write control registers and model-specific registers.

Where one begins cannot be told by bytes alone, as what looks like a prefix may be the end of another instruction. So
every beginning that is possible is found, and a vCPU that stands at one tells which it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.events import EventKind
from libmicrovmi_py.model import U64_MAX

LONGEST = 15
"""Bytes of an instruction."""

GENERAL = (
    *("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
)
"""General registers by their numbers in instructions."""

_PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")
_REX = frozenset(range(0x40, 0x50))
_LOCK, _NARROW, _OTHER_OPERATION = 0xF0, 0x67, frozenset(b"\x66\xf2\xf3")
_SEGMENTS = {0x64: "fs_base", 0x65: "gs_base"}
_NEXT = len(GENERAL)

_MARKS = re.compile(rb"\x0f(?:\x22|\x30|\x06|\x01[\x30-\x37\x70-\x77\xb0-\xb7\xf0-\xf7\xc6])", re.DOTALL)
"""The opcodes; no two of them overlap."""

_WRITTEN = (0, 3, 4)
"""Control registers whose writes are looked for."""


class Target(NamedTuple):
    """What an instruction writes: CR and the register's number; MSR and 0, as RCX names the register."""

    kind: EventKind
    number: int = 0


MSRS = Target(EventKind.MSR)


class Operand(NamedTuple):
    """Two bytes of memory, by numbers of general registers (-1: none; 16 as the base: the next instruction)."""

    base: int
    indexed: int
    scale: int
    displacement: int
    size: int
    """Bytes that this takes behind the opcode."""


class Instruction(NamedTuple):
    """One that was decoded: what it writes, its bytes, its name, and what it takes the value from.

    ``source``: the number of a general register; -1: ``operand``, or what the instruction has none for.
    ``segment``: FS or GS where a prefix says so. ``narrow``: addresses have 32 bits.
    """

    target: Target
    length: int
    word: str
    source: int = -1
    operand: Operand | None = None
    segment: str = ""
    narrow: bool = False

    def address(self, registers: Mapping[str, int]) -> int:
        """Where the operand is, of a vCPU that stands at the instruction."""
        assert self.operand is not None
        base, index, scale, displacement, _ = self.operand
        found = displacement + (registers["rip"] + self.length if base == _NEXT else 0)
        found += registers[GENERAL[base]] if 0 <= base < _NEXT else 0
        found += registers[GENERAL[index]] * scale if index >= 0 else 0
        found &= (1 << 32) - 1 if self.narrow else U64_MAX
        return found + (registers[self.segment] if self.segment else 0) & U64_MAX


def decode(data: bytes, *, wide: bool = True) -> Instruction | None:
    """The instruction at the beginning of ``data``; ``None``: another one, or too few bytes.

    ``wide``: in 64-bit mode; else what would be a prefix of that mode is an instruction of its own.
    """
    at, rex, prefixes = 0, 0, []
    while at < len(data) and (data[at] in _PREFIXES or (wide and data[at] in _REX)):
        rex = data[at] if data[at] in _REX else 0
        prefixes.append(data[at])
        at += 1
    opcode = data[at : at + 3]
    if _LOCK in prefixes or len(opcode) < 2 or opcode[0] != 0x0F:
        return None
    found = _decode_opcode(opcode[1], data[at + 2 :], rex, prefixes)
    if found is None or at + found.length > min(len(data), LONGEST):
        return None
    segment = next((_SEGMENTS[prefix] for prefix in reversed(prefixes) if prefix in _SEGMENTS), "")
    return found._replace(length=at + found.length, segment=segment, narrow=_NARROW in prefixes)


def _decode_opcode(opcode: int, behind: bytes, rex: int, prefixes: list[int]) -> Instruction | None:
    if opcode == 0x30:
        return Instruction(MSRS, 2, "wrmsr")
    if opcode == 0x06:
        return Instruction(Target(EventKind.CR, 0), 2, "clts")
    if not behind:
        return None
    register, source = behind[0] >> 3 & 7 | (rex & 4) << 1, behind[0] & 7 | (rex & 1) << 3
    if opcode == 0x22 and register in _WRITTEN:  # whatever the bits say that tell registers from memory
        return Instruction(Target(EventKind.CR, register), 3, "mov", source)
    if opcode == 0x01 and behind[0] == 0xC6 and not _OTHER_OPERATION.intersection(prefixes):
        return Instruction(MSRS, 3, "wrmsrns")
    if opcode == 0x01 and register & 7 == 6:
        return _decode_lmsw(behind, rex, source)
    return None


def _decode_lmsw(behind: bytes, rex: int, source: int) -> Instruction | None:
    target = Target(EventKind.CR, 0)
    if behind[0] >> 6 == 3:
        return Instruction(target, 3, "lmsw", source)
    operand = _decode_operand(behind, rex)
    return operand and Instruction(target, 2 + operand.size, "lmsw", operand=operand)


def _decode_operand(data: bytes, rex: int) -> Operand | None:
    """The memory that an operand names; ``None``: too few bytes."""
    mode, low, size = data[0] >> 6, data[0] & 7, 1
    base, index, scale = low | (rex & 1) << 3, -1, 1
    if low == 4:
        if len(data) < 2:
            return None
        base, index, size = data[1] & 7 | (rex & 1) << 3, data[1] >> 3 & 7 | (rex & 2) << 2, 2
        scale, index, low = 1 << (data[1] >> 6), -1 if index == 4 else index, data[1] & 7
        if low == 5 and not mode:
            base, mode = -1, 2
    elif low == 5 and not mode:
        base, mode = _NEXT, 2
    wide = {0: 0, 1: 1, 2: 4}[mode]
    if len(data) < size + wide:
        return None
    displacement = int.from_bytes(data[size : size + wide], "little", signed=True)
    return Operand(base, index, scale, displacement, size + wide)


def find(data: bytes) -> Iterator[tuple[int, Target]]:
    """Where in ``data`` instructions may begin, and what they write: prefixes in front of one may be part of it."""
    for match in _MARKS.finditer(data):
        at = match.start()
        while at >= 0:
            found = decode(data[at : at + LONGEST])
            if found is not None:
                yield at, found.target
            at -= 1
            if at < 0 or match.start() - at >= LONGEST - 1 or not (data[at] in _PREFIXES or data[at] in _REX):
                break
