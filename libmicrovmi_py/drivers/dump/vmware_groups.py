# SPDX-License-Identifier: Apache-2.0
"""The state of a VMware machine (vmss, vmsn): groups by name, each a row of tags with a name, indices and a value.

Behind a header of a magic and the number of groups is a table of names and places. A tag is a byte with the number of
its indices (two bits) and the size of its value (six bits), a byte with the length of its name, the name, the indices,
and the value. The sizes 62 and 63 stand for a block, packed or not, which has its sizes on disk and in memory and a
padding in front. A group ends with a tag of two zeros. All little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.dump.image import Image

_HEADER, _GROUP = struct.Struct("<4s4xI"), struct.Struct("<64sQ8x")
_MOST_GROUPS = 1 << 10
_MOST_TAGS = 1 << 20
"""More than the largest machine has, and few enough to be looked at."""
_BLOCK, _PACKED_BLOCK = 63, 62
_WINDOW = 64 << 10
_LARGEST_VALUE = 4096


class Tag(NamedTuple):
    """A value: where it is, and how many bytes it has there. ``packed`` is whether those have to be unpacked."""

    name: str
    indices: tuple[int, ...]
    offset: int
    size: int
    block: bool = False
    packed: bool = False


class Groups:
    """The groups of a state. What is read of the file is what is looked for."""

    def __init__(self, image: Image) -> None:
        """Raises ``IoError`` for a header that cannot be."""
        magic, count = _HEADER.unpack(image.read(0, _HEADER.size, "the header"))
        if count > _MOST_GROUPS:
            raise image.damaged(f"its header has {count} groups")
        table = image.read(_HEADER.size, count * _GROUP.size, "the table of groups")
        self.image = image
        self._sizes = struct.Struct("<2QH" if magic[0] & 0xF else "<2IH")
        self._places: dict[str, int] = {}
        for name, place in _GROUP.iter_unpack(table):
            self._places.setdefault(_text(name), place)
        self._window, self._begin = b"", 0

    def tags(self, group: str) -> Iterator[Tag]:
        """Those of a group, in their order; none if there is no such group. Raises ``IoError`` where it is cut."""
        position = self._places.get(group)
        for _ in range(_MOST_TAGS if position is not None else 0):
            assert position is not None
            if not self.image.has(position, 2):
                self.image.amiss(f"the group {group!r} ends at {self.image.size:#x}, in the middle")
                return
            flags, length = self._bytes(position, 2)
            if not flags and not length:
                return
            tag = self._tag(position, flags, length)
            position = tag.offset + tag.size
            yield tag

    def _tag(self, position: int, flags: int, length: int) -> Tag:
        count, size = flags >> 6, flags & 0x3F
        content = self._bytes(position + 2, length + 4 * count)
        indices = struct.unpack_from(f"<{count}I", content, length)
        name, position = _text(content[:length]), position + 2 + len(content)
        if size < _PACKED_BLOCK:
            return Tag(name, indices, position, size)
        on_disk, _, padding = self._sizes.unpack(self._bytes(position, self._sizes.size))
        return Tag(name, indices, position + self._sizes.size + padding, on_disk, True, size == _PACKED_BLOCK)

    def content(self, tag: Tag) -> bytes:
        """The bytes of a value, none of one that is packed or longer than any register or name."""
        return b"" if tag.packed or tag.size > _LARGEST_VALUE else self._bytes(tag.offset, tag.size)

    def number(self, tag: Tag) -> int:
        """A value that is a number of up to 8 bytes."""
        return int.from_bytes(self.content(tag)[:8], "little")

    def _bytes(self, position: int, size: int) -> bytes:
        """Those of the file, through a window: there are thousands of tags of a few bytes each."""
        start = position - self._begin
        if start < 0 or start + size > len(self._window):
            self.image.check(position, size, "a tag")
            self._window = self.image.read(position, min(_WINDOW, self.image.size - position), "tags")
            self._begin, start = position, 0
        return self._window[start : start + size]


def _text(name: bytes) -> str:
    return name.partition(b"\0")[0].decode("latin-1")
