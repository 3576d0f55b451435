# SPDX-License-Identifier: Apache-2.0
"""Finding the parts of a device state as QEMU saves it."""

from __future__ import annotations

import struct

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.errors import IoError

_MAGIC = b"QEVM\x00\x00\x00\x03"
_FULL, _SUBSECTION, _FOOTER, _END = 4, 5, 0x7E, 0
_FOLLOWERS = frozenset((_FULL, _SUBSECTION, _FOOTER, _END))
"""What the next byte is where the fields of a section are over."""

_MOST = 1 << 16
"""Sections of one name; there is one for each vCPU."""


class Section(NamedTuple):
    """A part of the state: the number of the device among those of its name, the format's version, where it starts."""

    instance: int
    version: int
    start: int

    def ends_at(self, data: bytes, size: int) -> bool:
        """Whether fields of ``size`` bytes may be all that the section has, but for subsections."""
        return value_at(data, self.start + size, 1) in _FOLLOWERS


def value_at(data: bytes, offset: int, size: int) -> int | None:
    """The number of ``size`` bytes there, ``None`` if that is behind the end."""
    return int.from_bytes(data[offset : offset + size], "big") if offset + size <= len(data) else None


def sections(data: bytes, name: str) -> list[Section]:
    """The sections of that name, in their order. They do not tell how long they are, so headers are searched for.

    The content of a device may look like a header. Raises ``IoError`` if this is no device state, and for more sections
    than any machine has.
    """
    if not data.startswith(_MAGIC):
        raise IoError("what QEMU saved is no device state")
    head = struct.Struct(">II")
    pattern = bytes([len(name)]) + name.encode()
    found, at = [], data.find(pattern)
    while at >= 0:
        start = at + len(pattern) + head.size
        if data[at - 5] == _FULL and start <= len(data):
            instance, version = head.unpack_from(data, at + len(pattern))
            found.append(Section(instance, version, start))
        if len(found) > _MOST:
            raise IoError(f"a device state with more than {_MOST} sections {name}: that cannot be")
        at = data.find(pattern, at + 1)
    return found
