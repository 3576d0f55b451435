# SPDX-License-Identifier: Apache-2.0
"""What a kernel has in its image and does not name: those without CONFIG_KALLSYMS_ALL name functions only."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.linux import btf

if TYPE_CHECKING:
    from libmicrovmi_py.linux.btf import Types
    from libmicrovmi_py.memory.virtual import AddressSpace

BANNER = b"Linux version "
_FIRST_TASK = b"swapper"
_BTF = struct.Struct("<HBBIIIII")
_BTF_MAGIC = struct.pack("<HBBI", 0xEB9F, 1, 0, _BTF.size)
_MOST_PLACES = 64
"""How many places that look like what is looked for are looked at."""


def banner(image: bytearray) -> int | None:
    """Where in the image the kernel's banner begins."""
    at = image.find(BANNER)
    return None if at < 0 else at


def types(image: bytearray) -> tuple[int, int] | None:
    """Where in the image the types begin, and where they end: the most, as those of modules may be near."""
    found: tuple[int, int] | None = None
    for at in _places(image, _BTF_MAGIC):
        if at + _BTF.size > len(image):
            break
        types_at, size, names_at, names_size = _BTF.unpack_from(image, at)[4:]
        end = at + _BTF.size + names_at + names_size
        if types_at == 0 and names_at == size > 0 and names_size and end - at <= btf.MOST_BYTES and end <= len(image):
            found = max(found or (at, at), (at, end), key=lambda place: place[1] - place[0])
    return found


def first_task(space: AddressSpace, types: Types, image: bytearray, start: int) -> int | None:
    """The address of ``init_task``: a task 0 of the idle loop's name, with a list that leads back to it."""
    structure = types.struct("task_struct")
    name, number, chain = (structure.field(member) for member in ("comm", "pid", "tasks"))
    for at in _places(image, _FIRST_TASK):
        place = at - name.offset
        if place < 0 or image[place + number.offset : place + number.offset + number.size] != bytes(number.size):
            continue
        if _is_chained(space, start + place + chain.offset):
            return start + place
    return None


def _is_chained(space: AddressSpace, at: int) -> bool:
    """Whether the next one of a list points back at the one at an address.

    What is before the first task is the newest, another one at each moment of a guest that runs.
    """
    content = bytearray(16)
    if space.read_virtual_into(at, content) < 8:
        return False
    done = space.read_virtual_into(int.from_bytes(content[:8], "little"), content)
    return done == 16 and int.from_bytes(content[8:], "little") == at


def _places(image: bytearray, text: bytes) -> Iterator[int]:
    at = image.find(text)
    for _ in range(_MOST_PLACES):
        if at < 0:
            return
        yield at
        at = image.find(text, at + 1)
