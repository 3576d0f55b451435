# SPDX-License-Identifier: Apache-2.0
"""What QEMU itself says about a guest, out of the texts of its monitor and of ``pmemsave``."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

from .monitor import Monitor

PIECE = 8 << 20
SCRATCH = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
_ZEROS = bytes(PIECE)

MAIN_MEMORY = ("pc.ram", "ram")
"""The RAM block of the main memory: QEMU's own, and that of the tests' memory backends."""


class Range(NamedTuple):
    """A range of guest-physical memory: first byte, size in bytes, ``ram``, ``rom`` or ``device``."""

    start: int
    size: int
    kind: str

    @property
    def end(self) -> int:
        return self.start + self.size


def memory_map(monitor: Monitor) -> list[Range]:
    """All memory in the flat view that the CPUs have, neighbours of one kind joined into one range."""
    views = monitor.human("info mtree -f").split("FlatView #")
    (view,) = [view for view in views if 'AS "memory"' in view]
    found = re.findall(r"^  (\w{16})-(\w{16}) \(prio \d+, (ram|rom)\): (\S+)", view, re.MULTILINE)
    return joined(Range(int(a, 16), int(b, 16) + 1 - int(a, 16), _kind(kind, name)) for a, b, kind, name in found)


def _kind(kind: str, name: str) -> str:
    return "device" if kind == "ram" and name not in MAIN_MEMORY else kind


def joined(ranges: Iterable[Range]) -> list[Range]:
    """The same memory with neighbours of one kind in one range."""
    result: list[Range] = []
    for item in ranges:
        if result and result[-1].end == item.start and result[-1].kind == item.kind:
            last = result.pop()
            item = Range(last.start, last.size + item.size, item.kind)
        result.append(item)
    return result


def first_difference(monitor: Monitor, item: Range, dump: Path) -> int | None:
    """The address in ``item`` at which ``pmemsave`` and the file ``dump`` first differ, ``None`` if they never do.

    QEMU saves a piece at a time, so that no second copy of a big guest is ever laid down.
    """
    with tempfile.TemporaryDirectory(dir=SCRATCH) as work, dump.open("rb") as file, monitor.held() as connection:
        saved = Path(work) / "saved"
        for start in range(item.start, item.end, PIECE):
            size = min(PIECE, item.end - start)
            connection.execute("pmemsave", val=start, size=size, filename=str(saved))
            expected, actual = saved.read_bytes(), _content(file.fileno(), start, size)
            if expected != actual:
                pairs = enumerate(zip(expected, actual, strict=True))
                return next(start + index for index, (one, other) in pairs if one != other)
    return None


def _content(file: int, start: int, size: int) -> bytes:
    """Bytes of a sparse file; its holes are not read, as that would cost the host a page each."""
    try:
        data = os.lseek(file, start, os.SEEK_DATA)
    except OSError:
        data = start + size
    return os.pread(file, size, start) if data < start + size else _ZEROS[:size]


class Listed(NamedTuple):
    """A page as ``info tlb`` lists it, with the flags of the entry that maps it: user, writable, no execution, large.

    ``large`` is another flag in an entry of a small page, which no guest here sets.
    """

    virtual: int
    physical: int
    user: bool
    writable: bool
    no_execute: bool
    large: bool


def pages(monitor: Monitor) -> list[Listed]:
    """All pages that the first vCPU's tables map, in the order of their addresses."""
    rows = re.findall(r"^(\w{16}): (\w{16}) ([-A-Z]{9})$", monitor.human("info tlb"), re.MULTILINE)
    return [_listed(int(virtual, 16), int(physical, 16), flags) for virtual, physical, flags in rows]


def _listed(virtual: int, physical: int, flags: str) -> Listed:
    """What is behind a line; for tables of PAE it has bit 63 of the entry in the address."""
    return Listed(virtual, physical & ~(1 << 63), "U" in flags, "W" in flags, "X" in flags, "P" in flags)


class Allowed(NamedTuple):
    """Neighbours that user and kernel may do the same with, all levels of tables together: ``info mem``."""

    start: int
    end: int
    user: bool
    writable: bool


def allowed(monitor: Monitor) -> list[Allowed]:
    """All of the first vCPU's. Not for 5 levels: QEMU takes a minute."""
    rows = re.findall(r"^(\w{16})-\w{16} (\w{16}) ([-u])r([-w])$", monitor.human("info mem"), re.MULTILINE)
    return [
        Allowed(int(start, 16), int(start, 16) + int(size, 16), user == "u", write == "w")
        for start, size, user, write in rows
    ]


def translated(monitor: Monitor, address: int) -> int | None:
    """Where the first vCPU finds a virtual address (``gva2gpa``); ``None`` if nowhere."""
    found = re.search(r"gpa: 0x([0-9a-f]+)", monitor.human(f"gva2gpa {address:#x}"))
    return int(found[1], 16) if found else None


def physical(monitor: Monitor, address: int, size: int) -> bytes:
    """``size`` bytes of memory as ``xp`` prints them."""
    text = monitor.human(f"xp /{size}bx {address:#x}")
    return bytes(int(byte, 16) for line in text.splitlines() for byte in line.partition(":")[2].split())


class Human(Protocol):
    """Whoever hands a line to QEMU's human monitor: a monitor of ours, or libvirt."""

    def human(self, line: str) -> str: ...


Value = int | tuple[int, int] | tuple[int, int, int]

_SEGMENT = re.compile(r"^(ES|CS|SS|DS|FS|GS|LDT|TR) *=(\w{4}) (\w{16}) (\w{8}) \w{8}", re.MULTILINE)
_TABLE = re.compile(r"^(GDT|IDT)= +(\w{16}) (\w{8})", re.MULTILINE)
_PLAIN = re.compile(r"\b(R[A-Z0-9]{1,2}|RFL|RIP|CR[0-4]|EFER) ?=(\w+)")


def registers(monitor: Human) -> list[dict[str, Value]]:
    """The registers of each vCPU by the names of the C header, from ``info registers -a``.

    A segment is (base, limit, selector), a table (base, limit).
    """
    return [_registers(text) for text in re.split(r"^CPU#\d+$", monitor.human("info registers -a"), flags=re.M)[1:]]


def _registers(text: str) -> dict[str, Value]:
    values: dict[str, Value] = {_name(name): int(value, 16) for name, value in _PLAIN.findall(text)}
    values["msr_efer"] = values["efer"]
    for name, selector, base, limit in _SEGMENT.findall(text):
        values[name.lower()] = (int(base, 16), int(limit, 16), int(selector, 16))
    for name, base, limit in _TABLE.findall(text):
        values[name.lower()] = (int(base, 16), int(limit, 16))
    return values


def _name(name: str) -> str:
    return {"RFL": "rflags"}.get(name, name.lower())
