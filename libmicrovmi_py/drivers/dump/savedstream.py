# SPDX-License-Identifier: Apache-2.0
"""QEMU's stream as it is read, up to the first device: the pages, the machine's type, and where the devices begin.

A magic, then parts, each of a byte (what it is), a number and content; of those before the devices only ``ram`` is
read.
"""

from __future__ import annotations

from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.savedmapped import MappedPages
from libmicrovmi_py.drivers.dump.savedram import Block, SavedPages

MAGIC = b"QEVM\0\0\0\3"
WAY_OUT = "make a dump with dump-guest-memory instead of saving the machine"

_EOF, _START, _PART, _END, _FULL, _SUBSECTION, _CONFIGURATION, _COMMAND, _FOOTER = 0, 1, 2, 3, 4, 5, 7, 8, 0x7E
_MOST_PARTS = 1 << 24


class SavedStream:
    """``pages`` has the blocks, and the pages unless these are ``mapped``; ``devices`` is where those begin, 0 if it
    ends before."""

    def __init__(self, image: Image) -> None:
        self.pages = SavedPages(image)
        self.mapped: MappedPages | None = None
        self.machine = ""
        self.devices = 0
        self._image = image
        self._live: dict[int, str] = {}

    def read(self) -> None:
        """Raises ``ValueError`` for what is cut, or is no stream."""
        position = len(MAGIC)
        for _ in range(_MOST_PARTS):
            kind = self._number(position, 1)
            if kind == _CONFIGURATION:
                position = self._configuration(position + 1)
            elif kind in (_START, _PART, _END):
                position = self._section(kind, position + 1)
            elif kind == _COMMAND:
                position += 5 + self._number(position + 3, 2)
            elif kind in (_FULL, _EOF) and self.pages.blocks:
                self.devices = position
                return
            else:
                raise ValueError(f"there is no section at {position:#x}")
        raise ValueError(f"more than {_MOST_PARTS} parts")

    def _bytes(self, position: int, size: int) -> bytes:
        if not self._image.has(position, size):
            raise ValueError(f"it ends at {self._image.size:#x}, before the devices")
        return self._image.read(position, size, "a section")

    def _number(self, position: int, size: int) -> int:
        return int.from_bytes(self._bytes(position, size), "big")

    def _text(self, position: int) -> tuple[str, int]:
        """A text with its length in a byte, and what is behind it."""
        size = self._number(position, 1)
        return self._bytes(position + 1, size).decode("utf-8", "replace"), position + 1 + size

    def _configuration(self, position: int) -> int:
        size = self._number(position, 4)
        if size > 255:
            raise ValueError(f"the machine's type has {size} characters")
        self.machine = self._bytes(position + 4, size).decode("utf-8", "replace")
        position += 4 + size
        while self._number(position, 1) == _SUBSECTION:
            name, position = self._text(position + 1)
            position = self._subsection(name, position + 4)
        return position

    def _subsection(self, name: str, position: int) -> int:
        """Behind what a part of the configuration has."""
        if name == "configuration/target-page-bits":
            return position + 4
        if name == "configuration/uuid":
            return position + 16
        if name != "configuration/capabilities":
            raise ValueError(f"{name[:80]!r} is not known")
        count = self._number(position, 4)
        position += 4
        for _ in range(min(count, 256)):
            capability, position = self._text(position)
            self.pages.shared_left_out |= capability == "x-ignore-shared"
            if capability == "mapped-ram":
                self.mapped = MappedPages(self._image)
                self.pages.behind_name = self._mapped_block
        return position

    def _mapped_block(self, block: Block, position: int) -> int:
        assert self.mapped is not None
        return self.mapped.add(block, position, shared_left_out=self.pages.shared_left_out)

    def _section(self, kind: int, position: int) -> int:
        number = self._number(position, 4)
        position += 4
        if kind == _START:
            name, position = self._text(position)
            version = self._number(position + 4, 4)
            if name != "ram" or version != 4:
                raise self._image.refused(f"a saved machine of QEMU with a section {name[:80]!r} {version}", WAY_OUT)
            self._live[number] = name
            position += 8
        if number not in self._live:
            raise ValueError(f"a part of section {number} that was not begun")
        position = self.pages.read_section(position)
        if self._number(position, 1) == _FOOTER:
            position += 5
        return position
