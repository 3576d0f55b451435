# SPDX-License-Identifier: Apache-2.0
"""Stores of 64-bit x86 code into variables that each vCPU has its own copy of: relative to GS, at a fixed offset."""

from __future__ import annotations

from libmicrovmi_py.model import U64_MAX

_GS = 0x65
_PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\xf0\xf2\xf3")
_REX = range(0x40, 0x50)
_NARROW = 0x66
_IMMEDIATES = {0x88: 0, 0x89: 0, 0xC6: 1, 0xC7: 4}
"""The opcodes of ``mov`` to memory, by the bytes of an immediate value."""

_ABSOLUTE = 0x25
"""The byte behind ModRM which says that there is no register in the address."""


def per_vcpu_store(data: bytes, address: int) -> int | None:
    """How far from GS's base the instruction at ``address`` stores; ``None``: it does not. ``data`` begins with it."""
    at, prefixes = 0, set()
    while at < len(data) and (data[at] in _PREFIXES or data[at] in _REX):
        prefixes.add(data[at])
        at += 1
    if _GS not in prefixes or len(data) < at + 3 or data[at] not in _IMMEDIATES:
        return None
    immediate = 2 if data[at] == 0xC7 and _NARROW in prefixes else _IMMEDIATES[data[at]]
    mode, low = data[at + 1] >> 6, data[at + 1] & 7
    if mode == 0 and low == 5:
        displacement, base = data[at + 2 : at + 6], address + at + 6 + immediate
    elif mode == 0 and low == 4 and data[at + 2] == _ABSOLUTE:
        displacement, base = data[at + 3 : at + 7], 0
    else:
        return None
    if len(displacement) < 4:
        return None
    return (int.from_bytes(displacement, "little", signed=True) + base) & U64_MAX


def rewrites_itself(before: bytes, instruction: bytes) -> bool:
    """Whether a ``mov`` to CR3 writes what the instruction before it has read from there: a flush, and no change.

    ``before`` is what lies in front of it, ``instruction`` it.
    """
    rex, register = _moved(instruction, 0x22)
    if register < 0:
        return False
    read = bytes((0x0F, 0x20, 0xD8 | register))
    return before.endswith(bytes((0x41,)) + read) if rex else before.endswith(read) and before[-4:-3] != b"\x41"


def _moved(data: bytes, opcode: int) -> tuple[int, int]:
    """The general register of a ``mov`` of CR3: whether it is of the upper half, and its low number; -1: it is none."""
    upper = data[:1] == b"\x41"
    code = data[1:4] if upper else data[:3]
    if len(code) < 3 or code[:2] != bytes((0x0F, opcode)) or code[2] >> 3 != 0xD8 >> 3:
        return False, -1
    return upper, code[2] & 7
