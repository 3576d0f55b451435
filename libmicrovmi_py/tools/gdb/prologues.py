# SPDX-License-Identifier: Apache-2.0
"""How frames of an AArch64 Linux kernel are undone: what its functions do first, as the ``.debug_frame`` of DWARF.

Such kernels keep a chain of frame records. A debugger's own look at how functions begin gets lost in what the kernel's
compiler puts there for its tracers.
"""

from __future__ import annotations

import re
import struct
from array import array
from collections.abc import Iterator, Sequence
from itertools import pairwise

from libmicrovmi_py.tools.gdb.cfi import CIE, signed, sized, unsigned

LONGEST_TEXT = 64 << 20
"""Bytes of code of a kernel: Debian's have 20 MiB."""

_LOOKED_AT = 16
"""Instructions of a function among which those that make its frame are."""

_HEAD = struct.Struct("<IQQ")
_FP, _LR, _SP = 29, 30, 31
_DEF_CFA, _ADVANCE, _OFFSET_SF, _UNDEFINED = 0x0C, 0x40, 0x11, 0x07
_DATA = -8

_KEEP_AND_MOVE, _KEEP, _KEEP_MASK = 0xA9807BFD, 0xA9007BFD, 0xFFC07FFF
"""``stp x29, x30, [sp, #n]!`` and ``stp x29, x30, [sp, #n]``."""

_SUBTRACT, _ADD, _ADD_MASK = 0xD10003FF, 0x910003FD, 0xFFC003FF
"""``sub sp, sp, #n`` and ``add x29, sp, #n``, which ``mov x29, sp`` is."""

_ENTRY = re.compile(r"el[01]\w*_(sync|irq|fiq|error)")
"""Where exceptions begin: they make a frame record out of what was interrupted, in their own way."""

_FIRST = re.compile(r"__secondary_switched|ret_from_fork")
"""What nobody has called."""


def frames(text: bytes, start: int, functions: Sequence[tuple[int, str]]) -> bytes:
    """The section for code from ``start`` on, with its functions: (address, name), ascending."""
    words = array("I", text[: len(text) & ~3])
    pieces = [sized(CIE + b"\1\0" + unsigned(4) + signed(_DATA) + bytes((_LR, _DEF_CFA, _SP, 0)))]
    for (address, name), (after, _) in pairwise([*functions, (start + 4 * len(words), "")]):
        if start <= address < after and not address & 3:
            first = (address - start) // 4
            code = _code(name, words[first : first + _LOOKED_AT])
            pieces.append(sized(_HEAD.pack(0, address, after - address) + code))
    return b"".join(pieces)


def _code(name: str, words: Sequence[int]) -> bytes:
    if _FIRST.fullmatch(name):
        return bytes((_UNDEFINED, _LR))
    return _record() if _ENTRY.fullmatch(name) else b"".join(_rows(words))


def _record() -> bytes:
    """A frame record is where x29 points."""
    return bytes((_DEF_CFA, _FP)) + unsigned(16) + _saved(_FP, -16) + _saved(_LR, -8)


def _saved(register: int, offset: int) -> bytes:
    return bytes((_OFFSET_SF, register)) + signed(offset // _DATA)


def _rows(words: Sequence[int]) -> Iterator[bytes]:
    """What changes behind each instruction that has to do with the frame, until the frame is made."""
    moved, record, told = 0, -1, 0
    for index, word in enumerate(words):
        row = b""
        if word & _ADD_MASK == _SUBTRACT:
            moved += word >> 10 & 0xFFF
            row = bytes((_DEF_CFA, _SP)) + unsigned(moved)
        elif word & _KEEP_MASK in (_KEEP_AND_MOVE, _KEEP):
            offset = 8 * ((word >> 15 & 0x3F) - (word >> 15 & 0x40))
            if word & _KEEP_MASK == _KEEP_AND_MOVE:
                moved, offset = moved - offset, 0
            record = offset
            saved = _saved(_FP, record - moved) + _saved(_LR, record + 8 - moved)
            row = bytes((_DEF_CFA, _SP)) + unsigned(max(moved, 0)) + saved
        elif word & _ADD_MASK == _ADD and record >= 0:
            row = bytes((_DEF_CFA, _FP)) + unsigned(max(moved - (word >> 10 & 0xFFF), 0))
        if row:
            yield bytes((_ADVANCE | index + 1 - told,)) + row
            told = index + 1
        if word & _ADD_MASK == _ADD and record >= 0:
            return
