# SPDX-License-Identifier: Apache-2.0
"""A module of Debian's kernel with another first function, which writes registers and then refuses to be loaded."""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from .packages import Unobtainable

GS_BASE = 0xC000_0102

_BEGIN = re.compile(rb"(?:\x90{16})?(?:\xf3\x0f\x1e\xfa)?\xe8....", re.DOTALL)
"""What the first function begins with: room before it, where a jump may lead, and the call that tracers use."""

_CODE = bytes.fromhex("0f20c0 0f22c0 0f06 0f20e0 0f22e0 b9020100c0 0f32 0f30 b8edffffff")
"""mov %cr0,%rax; mov %rax,%cr0; clts; mov %cr4,%rax; mov %rax,%cr4; mov $0xc0000102,%ecx; rdmsr; wrmsr;
mov $-ENODEV,%eax"""

CR0_AT, CLTS_AT, CR4_AT, MSR_AT = 3, 6, 11, 21
"""Where in that code the writes are."""

_JUMP = 0xE9
_SIGNED = b"~Module signature appended~\n"
"""At the end; a module without it is loaded all the same, one with a signature of something else is not."""

_SECTION = struct.Struct("<IIQQQQIIQQ")
_RELOCATION = struct.Struct("<QQq")


class _Section(NamedTuple):
    """What is needed of a section of an ELF file."""

    offset: int
    size: int


def writing_module(module: bytes) -> bytes:
    """``msr.ko`` with that code; what the loader would write into it is taken out.

    Raises ``Unobtainable`` for one whose first function begins or ends in another way.
    """
    data = bytearray(module)
    code, relocations = _section(data, b".init.text"), _section(data, b".rela.init.text")
    found = _BEGIN.match(data, code.offset, code.offset + code.size)
    end = data.rfind(_JUMP, code.offset, code.offset + code.size) - code.offset
    begin = found.end() - code.offset if found else end
    if end <= begin + len(_CODE) + 5:
        raise Unobtainable("the first function of this kernel's msr.ko is none of those that are known")
    jump = struct.pack("<Bi", _JUMP, end - (begin + len(_CODE) + 5))
    data[code.offset + begin : code.offset + begin + len(_CODE) + 5] = _CODE + jump
    for at in range(relocations.offset, relocations.offset + relocations.size, _RELOCATION.size):
        place, _, addend = _RELOCATION.unpack_from(data, at)
        if begin <= place < end:
            _RELOCATION.pack_into(data, at, place, 0, addend)
    return bytes(data).removesuffix(_SIGNED)


def _section(data: bytearray, name: bytes) -> _Section:
    start, size, count, names = struct.unpack_from("<Q", data, 40)[0], *struct.unpack_from("<HHH", data, 58)
    sections = [_SECTION.unpack_from(data, start + size * index) for index in range(count)]
    texts = sections[names][4]
    for section in sections:
        at = texts + section[0]
        if data[at : at + len(name) + 1] == name + b"\0":
            return _Section(section[4], section[5])
    raise ValueError(f"no section {name.decode()}")
