# SPDX-License-Identifier: Apache-2.0
"""What QEMU logs at present. No monitor tells; its own variable does, where the program exports its name."""

from __future__ import annotations

import mmap
import os
import struct

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.transport.fds import OwnedFd, StandardStreamsHeld
from libmicrovmi_py.transport.processes import Process

_VARIABLE = b"\0qemu_loglevel\0"
_TRACE = 1 << 15
"""On in QEMUs whose traces go to the log; the events to be traced are chosen otherwise."""

_HEAD = struct.Struct("<4sBB10xHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_DYNAMIC_SYMBOLS = 11
_MOST_SECTIONS = 1 << 12
_LARGEST = 1 << 27
"""Bytes of a table."""


class _Section(NamedTuple):
    name: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry: int


def logs(process: Process) -> bool:
    """Whether QEMU has anything to log. ``False`` where that cannot be seen, too."""
    try:
        place = _place(process)
        if place is None:
            return False
        memory = OwnedFd.open(process.path("mem"), os.O_RDONLY)
        return bool(int.from_bytes(os.pread(memory.number, 4, place), "little") & ~_TRACE)
    except (OSError, ValueError, struct.error):
        return False


def _place(process: Process) -> int | None:
    """Where the variable is in the process."""
    program = OwnedFd.open(process.path("exe"), os.O_RDONLY)
    inode = os.fstat(program.number).st_ino
    start = next((vma.start for vma in process.mappings() if vma.inode == inode and vma.offset == 0), None)
    with StandardStreamsHeld(), mmap.mmap(program.number, 0, prot=mmap.PROT_READ) as data:
        head = _HEAD.unpack_from(data)
        value = _value(data, head[8], head[14])
        is_fixed = head[3] == 2
    if value is None or start is None:
        return None
    return value if is_fixed else start + value


def _value(data: mmap.mmap, table: int, count: int) -> int | None:
    """The variable's address in an ELF file, by its dynamic symbols."""
    sections = [_Section(*_SECTION.unpack_from(data, table + index * _SECTION.size)) for index in range(count)]
    for section in sections:
        if section.type != _DYNAMIC_SYMBOLS or section.link >= count:
            continue
        names = sections[section.link]
        if max(section.size, names.size) > _LARGEST:
            return None
        text = data[names.offset : names.offset + names.size]
        name = text.find(_VARIABLE) + 1
        symbols = data[section.offset : section.offset + section.size - section.size % _SYMBOL.size]
        return next((each[4] for each in _SYMBOL.iter_unpack(symbols) if name and each[0] == name), None)
    return None
