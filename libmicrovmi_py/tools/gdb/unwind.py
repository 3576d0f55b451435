# SPDX-License-Identifier: Apache-2.0
"""How frames of an x86-64 Linux kernel are undone: its ORC tables, out of memory, as the ``.debug_frame`` of DWARF.

Such kernels have no frame pointers, so a debugger without these tables guesses, and shows callers that are none.
"""

from __future__ import annotations

import struct
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise

from libmicrovmi_py.declare import NamedTuple, Protocol
from libmicrovmi_py.memory.virtual import AddressSpace
from libmicrovmi_py.tools.gdb.cfi import CIE, signed, sized, unsigned

_MOST_ROWS = 4 << 20
"""Rows of a kernel: Debian's have 600,000."""

_ROW = struct.Struct("<hhBB")
_BLOCK = 32
"""Rows of one description, which a debugger goes through from its beginning."""

_LONGEST_BLOCK = 1 << 24
"""Bytes of code of one description."""

_HEAD = struct.Struct("<IQQ")

_RBX, _RBP, _RSP, _RETURN = 3, 6, 7, 16
_NOT_KNOWN = (_RBX, 12, 13, 14, 15)
"""What functions keep of their callers, and the tables do not tell where."""

_DEF_CFA, _DEF_CFA_SF, _DEF_CFA_EXPRESSION = 0x0C, 0x12, 0x0F
_OFFSET_SF, _EXPRESSION, _UNDEFINED, _SAME, _ADVANCE_1, _ADVANCE_2, _ADVANCE_4 = 0x11, 0x10, 0x07, 0x08, 2, 3, 4
_ADVANCE = 0x40
_BREG, _DEREF, _PLUS = 0x70, 0x06, 0x23
_DATA = -8
"""The factor of offsets."""

_PT_REGS = {15: 0, 14: 8, 13: 16, 12: 24, _RBP: 32, _RBX: 40, 11: 48, 10: 56, 9: 64, 8: 72, 0: 80, 2: 88, 1: 96}
_PT_REGS |= {4: 104, 5: 112, _RETURN: 128, _RSP: 152}
"""Where the registers of a frame of an interrupt are, in ``struct pt_regs``."""

_IRET = {_RETURN: 0, _RSP: 24}
"""And those that the processor itself puts there."""


class Names(Protocol):
    """The symbols of a kernel: (address, letter of ``nm``, name), and the address of a name."""

    def __iter__(self) -> Iterator[tuple[int, str, str]]: ...
    def get(self, name: str, /) -> int | None: ...


class KernelImage(Protocol):
    """What of a :class:`~libmicrovmi_py.linux.kernel.Kernel` it takes."""

    @property
    def release(self) -> str: ...
    @property
    def architecture(self) -> str: ...
    @property
    def symbols(self) -> Names: ...
    @property
    def space(self) -> AddressSpace: ...


class Numbers(NamedTuple):
    """What rows mean by numbers. Of registers: ``bases`` are those of DWARF by what ORC counts from; ``previous`` is
    the caller's stack pointer, the last two are where one lies.

    Of the last byte: ``mask`` is the bits of the type, ``end`` the bit that says that there is no caller.
    """

    bases: Mapping[int, int]
    previous: int
    bp_indirect: int
    sp_indirect: int
    mask: int = 0
    end: int = 0
    call: int = 0
    regs: int = 0
    partial: int = 0


_REGISTERS = (
    Numbers({2: 1, 3: 5, 4: _RBP, 5: _RSP, 6: 10, 7: 13}, previous=1, bp_indirect=8, sp_indirect=9),
    Numbers({2: 1, 3: _RSP, 4: _RBP, 6: 10, 7: 13}, previous=8, bp_indirect=10, sp_indirect=9),
)
"""Numbers of registers until 6.x, and in 7.x: which they are is told by the stack pointer, in most rows."""

_BP = 4


def debug_frame(kernel: KernelImage) -> bytes:
    """The section; empty for a kernel that has no such tables, or damaged ones. Raises what reading memory raises."""
    names = ("__start_orc_unwind_ip", "__stop_orc_unwind_ip", "__start_orc_unwind", "_etext")
    start, stop, table, end = (kernel.symbols.get(name) or 0 for name in names)
    if kernel.architecture != "x86_64" or not start or not table:
        return b""
    count = (stop - start) // 4
    if not 0 < count <= _MOST_ROWS:
        return b""
    offsets = array("i", kernel.space.read_virtual(start, 4 * count))
    rows = kernel.space.read_virtual(table, _ROW.size * count)
    addresses = [start + 4 * index + offset for index, offset in enumerate(offsets)]
    if any(after < before for before, after in pairwise(addresses)):
        return b""
    return _section(addresses, rows, max(end, addresses[-1] + 1), _numbers(kernel, rows))


def _numbers(kernel: KernelImage, rows: bytes) -> Numbers:
    """Which numbers a kernel has: types by its version (new in 6.4), registers by what most rows count from."""
    bases = Counter(register & 15 for register in rows[4 :: _ROW.size])
    numbers = max(_REGISTERS, key=lambda item: bases[next(base for base in item.bases if item.bases[base] == _RSP)])
    version = tuple(int(part) if part.isdigit() else 0 for part in kernel.release.split("-")[0].split(".")[:2])
    if version >= (6, 4):
        return numbers._replace(mask=7, call=2, regs=3, partial=4)
    return numbers._replace(mask=3, end=4, call=0, regs=1, partial=2)


def _section(addresses: list[int], rows: bytes, end: int, numbers: Numbers) -> bytes:
    told: dict[bytes, tuple[bool, bytes]] = {}
    heads = [_cie(interrupt=False), _cie(interrupt=True)]
    pieces = list(heads)
    for interrupt, first, last in _blocks(addresses, rows, numbers, told):
        after = addresses[last] if last < len(addresses) else end
        if after == addresses[first]:
            continue  # of several rows at an address the last counts
        code, at = bytearray(), addresses[first]
        for index in range(first, last):
            code += _advance(addresses[index] - at) + told[rows[6 * index : 6 * index + 6]][1]
            at = addresses[index]
        head = _HEAD.pack(len(heads[0]) if interrupt else 0, addresses[first], after - addresses[first])
        pieces.append(sized(head + (b"\0" if interrupt else b"") + code))
    return b"".join(pieces)


def _blocks(
    addresses: list[int], rows: bytes, numbers: Numbers, told: dict[bytes, tuple[bool, bytes]]
) -> Iterator[tuple[bool, int, int]]:
    """Rows that are one description: whether of frames of interrupts, the first, and one past the last."""
    first, kind = 0, False
    for index, address in enumerate(addresses):
        row = rows[6 * index : 6 * index + 6]
        if row not in told:
            sp_offset, bp_offset, registers, last = _ROW.unpack(row)
            told[row] = _instructions(sp_offset, bp_offset, registers, last, numbers)
        mine = told[row][0]
        full = index - first >= _BLOCK or address - addresses[first] > _LONGEST_BLOCK
        if index > first and (mine != kind or full):
            yield kind, first, index
            first = index
        kind = mine
    yield kind, first, len(addresses)


def _instructions(sp_offset: int, bp_offset: int, registers: int, last: int, numbers: Numbers) -> tuple[bool, bytes]:
    """Whether a row is of a frame whose caller has another stack, and the whole of it as instructions of DWARF."""
    sp, bp, kind = registers & 15, registers >> 4, last & numbers.mask
    frame = _frame(sp, sp_offset, numbers)
    if not frame or last & numbers.end or kind not in (numbers.call, numbers.regs, numbers.partial):
        return False, bytes((_DEF_CFA, _RSP)) + unsigned(8) + bytes((_UNDEFINED, _RETURN))
    if kind == numbers.call:
        switched = sp in (numbers.sp_indirect, numbers.bp_indirect)
        return switched, frame + _saved(_RETURN, -8) + _base_pointer(bp, bp_offset, numbers)
    saved = _PT_REGS if kind == numbers.regs else _IRET
    return True, frame + b"".join(_saved(register, offset) for register, offset in saved.items())


def _frame(sp: int, offset: int, numbers: Numbers) -> bytes:
    """The stack pointer of the caller; empty if it is not known."""
    if sp == numbers.sp_indirect:
        return _expression(bytes((_DEF_CFA_EXPRESSION,)), bytes((_BREG + _RSP,)) + signed(0) + _then(offset))
    if sp == numbers.bp_indirect:
        code = bytes((_BREG + _RBP,)) + signed(offset) + bytes((_DEREF,))
        return _expression(bytes((_DEF_CFA_EXPRESSION,)), code)
    if sp not in numbers.bases:
        return b""
    base = numbers.bases[sp]
    if offset >= 0:
        return bytes((_DEF_CFA, base)) + unsigned(offset)
    return _expression(bytes((_DEF_CFA_EXPRESSION,)), bytes((_BREG + base,)) + signed(offset))


def _then(offset: int) -> bytes:
    """Follow a pointer, and add to what is there; the offset is 8 where it is used."""
    return bytes((_DEREF, _PLUS)) + unsigned(max(offset, 0))


def _base_pointer(bp: int, offset: int, numbers: Numbers) -> bytes:
    if bp == numbers.previous:
        return _saved(_RBP, offset)
    if bp == _BP:
        return _expression(bytes((_EXPRESSION, _RBP)), bytes((_BREG + _RBP,)) + signed(offset))
    return bytes((_SAME, _RBP))


def _saved(register: int, offset: int) -> bytes:
    """A register is at the frame's address and ``offset``, which is whole words in every row that means anything."""
    return bytes((_OFFSET_SF, register)) + signed(offset // _DATA)


def _expression(head: bytes, code: bytes) -> bytes:
    return head + unsigned(len(code)) + code


def _advance(delta: int) -> bytes:
    if not delta:
        return b""
    if delta < 0x40:
        return bytes((_ADVANCE | delta,))
    for code, size in ((_ADVANCE_1, 1), (_ADVANCE_2, 2), (_ADVANCE_4, 4)):
        if delta < 1 << 8 * size:
            return bytes((code,)) + delta.to_bytes(size, "little")
    return b""


def _cie(*, interrupt: bool) -> bytes:
    """What descriptions have in common; those whose caller has another stack are marked.

    A debugger else takes a stack that goes the wrong way for a broken one. It also takes the address of the caller for
    that of an instruction, not of a call, which is right for frames of interrupts.
    """
    text = b"zS\0" if interrupt else b"\0"
    head = CIE + b"\1" + text + unsigned(1) + signed(_DATA) + bytes((_RETURN,))
    if interrupt:
        return sized(head + unsigned(0))
    return sized(head + b"".join(bytes((_UNDEFINED, register)) for register in _NOT_KNOWN))
