# SPDX-License-Identifier: Apache-2.0
"""VMCOREINFO: the note in which a kernel tells crash dumps of itself, found in the guest's memory.

It lies at the start of a page of its own. A machine that was restarted may hold notes of kernels that are gone, so that
whoever uses one looks whether what it says is so.
"""

from __future__ import annotations

from collections.abc import Iterator

from libmicrovmi_py.errors import IoError
from libmicrovmi_py.memory.physical import PhysicalMemory
from libmicrovmi_py.model import PAGE_SIZE, MemoryKind

_HEADER = b"VMCOREINFO\0\0"
_NAME, _TEXT = 12, 24
"""Where in the note, of an ELF file's kind, its name and its text begin."""

_LONGEST = 16384
"""Bytes of a text; kernels write 3 to 4 KiB."""

_CHUNK = 1 << 20


class VmcoreInfo:
    """The note's lines, ``KIND(name)=value``, by kind and name. ``text`` is the whole, ``address`` where it lies."""

    def __init__(self, text: bytes, address: int = 0) -> None:
        self.text = text
        self.address = address
        lines = text.decode("ascii", "replace").splitlines()
        self._values = dict(line.split("=", 1) for line in lines if "=" in line)

    def get(self, name: str) -> str | None:
        """The value of a line as it stands."""
        return self._values.get(name)

    def symbol(self, name: str) -> int | None:
        """The address of a symbol."""
        return _number(self._values.get(f"SYMBOL({name})"), 16)

    def number(self, name: str) -> int | None:
        """A number, which some lines have in decimals, some with ``0x``."""
        return _number(self._values.get(f"NUMBER({name})"), 0)

    def offset(self, name: str) -> int | None:
        """Where in a structure a member is, ``structure.member``, in bytes."""
        return _number(self._values.get(f"OFFSET({name})"), 10)

    def size(self, name: str) -> int | None:
        """Bytes of a structure."""
        return _number(self._values.get(f"SIZE({name})"), 10)

    @property
    def page_size(self) -> int:
        """Bytes of a page of the kernel's."""
        return _number(self._values.get("PAGESIZE"), 10) or 4096

    @property
    def release(self) -> str:
        """What ``uname -r`` says."""
        return self._values.get("OSRELEASE", "")

    @property
    def build_id(self) -> str | None:
        """The build id in hexadecimal digits; kernels before 5.13 do not tell it here."""
        return self._values.get("BUILD-ID")

    @property
    def kaslr_offset(self) -> int:
        """How far the kernel was moved from where it was linked to, in bytes."""
        return _number(self._values.get("KERNELOFFSET"), 16) or 0


def _number(text: str | None, base: int) -> int | None:
    try:
        return None if text is None else int(text, base)
    except ValueError:
        return None


def notes(physical: PhysicalMemory) -> Iterator[VmcoreInfo]:
    """Every note in RAM, in the order of their addresses. What cannot be read is left out."""
    for item in physical.ranges():
        if item.kind is not MemoryKind.RAM:
            continue
        address = item.start
        while (address := physical.find(address, False)) < item.end:
            size = min(_CHUNK - address % _CHUNK, item.end - address)
            yield from _within(physical, address, size)
            address += size


def _within(physical: PhysicalMemory, start: int, size: int) -> Iterator[VmcoreInfo]:
    """The notes whose first page is among ``size`` bytes from ``start`` on."""
    start &= -PAGE_SIZE
    chunk = bytearray(size)
    try:
        physical.read_padded_into(start, memoryview(chunk))
    except IoError:
        return
    firsts = bytes(chunk[_NAME::PAGE_SIZE])
    page = firsts.find(b"V")
    while page >= 0:
        at = page * PAGE_SIZE
        if chunk.startswith(_HEADER, at + _NAME):
            yield from _note(physical, start + at)
        page = firsts.find(b"V", page + 1)


def _note(physical: PhysicalMemory, address: int) -> Iterator[VmcoreInfo]:
    """The note at an address, unless it has no text."""
    content = bytearray(_TEXT + _LONGEST)
    done = physical.read_into(address, memoryview(content))
    size = min(int.from_bytes(content[4:8], "little"), max(done - _TEXT, 0), _LONGEST)
    text = bytes(content[_TEXT : _TEXT + size]).partition(b"\0")[0]
    if b"OSRELEASE=" in text:
        yield VmcoreInfo(text, address)
