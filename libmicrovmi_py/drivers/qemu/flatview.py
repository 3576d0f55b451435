# SPDX-License-Identifier: Apache-2.0
"""The monitor's flat view of the guest's memory, as text and taken apart."""

from __future__ import annotations

import re
from collections.abc import Sequence

from libmicrovmi_py.declare import dataclass
from libmicrovmi_py.errors import IoError
from libmicrovmi_py.model import PHYSICAL_BITS, MemoryKind
from libmicrovmi_py.transport.shape import hexadecimal

_SYSTEM = ' AS "memory", '
_RANGE = re.compile(
    r"^ +(?P<start>[0-9a-f]+)-(?P<last>[0-9a-f]+) \((?:prio -?[0-9]+, )?(?:nv-)?(?P<kind>ram|romd?)\): "
    r"(?P<name>.+?)(?: @(?P<offset>[0-9a-f]+))?(?: KVM)?(?: (?P<whose>(?:owner|parent):\{[^}\n]{0,400}\}))?(?: KVM)?$"
)
_OWNER = re.compile(r" (?:owner|parent):\{[^}\n]{0,400}\}")


@dataclass(frozen=True, slots=True)
class FlatRange:
    """A line of the flat view: guest address and size in bytes, read-only or not, RAM block and offset in it.

    ``whose`` is the object that the block belongs to, ``owner:{...}`` or ``parent:{...}``, ``""`` if that is not told.
    Blocks of different objects may have the same name.
    """

    start: int
    size: int
    read_only: bool
    block: str
    offset: int
    whose: str = ""


@dataclass(frozen=True, slots=True)
class Extent:
    """Guest memory that lies in one piece of the host's.

    Guest address, size, kind, RAM block and offset in it, host address. ``unsteady`` is whether it may be unplugged.
    """

    start: int
    size: int
    kind: MemoryKind
    block: str
    offset: int
    host: int
    unsteady: bool = False

    def continues(self, other: Extent) -> bool:
        """Whether this extent follows ``other`` in the guest and in the host, and is the same memory."""
        distance = other.size
        mine, its = (self.kind, self.block, self.unsteady), (other.kind, other.block, other.unsteady)
        same = mine == its and self.offset == other.offset + distance
        return same and self.start == other.start + distance and self.host == other.host + distance


def system_view(text: str) -> str:
    """The flat view of the address space ``memory`` in the text of ``info mtree -f``, ``""`` if there is none.

    It has no number any more: those are by no order.
    """
    return next((view.lstrip("0123456789") for view in text.split("FlatView #") if _SYSTEM in view), "")


def without_owners(view: str) -> str:
    """A view of ``info mtree -f -o`` as ``info mtree -f`` tells it."""
    return _OWNER.sub("", view)


def parse_flat_view(text: str) -> list[FlatRange]:
    """The memory in the flat view of the address space ``memory``.

    Left out is what is not memory: ``i/o``, and ``ramd``, the registers of a passed-through device. Raises ``IoError``
    for addresses that no machine has.
    """
    view = system_view(text)
    return [_flat_range(match) for line in view.split("\n") if (match := _RANGE.match(line))]


def _flat_range(match: re.Match[str]) -> FlatRange:
    start, last = (hexadecimal(match[name], "an address in info mtree", PHYSICAL_BITS) for name in ("start", "last"))
    if last < start:
        raise IoError(f"info mtree tells a range from {start:#x} to {last:#x}")
    offset = hexadecimal(match["offset"] or "0", "an offset in info mtree")
    return FlatRange(start, last + 1 - start, match["kind"] != "ram", match["name"], offset, match["whose"] or "")


def main_blocks(ranges: Sequence[FlatRange], backends: set[str]) -> set[str]:
    """The RAM blocks that are the machine's main memory.

    Those of ``-object memory-backend-*`` and of the default backend (older machine types write ``/objects/ID``), and
    the block at address 0, which QEMU before 5.0 made without a backend. If that gives none, the largest one.
    """
    writable = [item for item in ranges if not item.read_only]
    names = _names(backends)
    found = {item.block for item in writable if item.block in names or item.start == 0}
    if not found and writable:
        found = {max(writable, key=lambda item: item.size).block}
    return found


def has_more(ranges: Sequence[FlatRange], backends: set[str]) -> bool:
    """Whether there is memory of backends beside the block at address 0: only that may be a device's, or plugged in."""
    first = {item.block for item in ranges if item.start == 0}
    return not _names(backends).isdisjoint(item.block for item in ranges if item.block not in first)


def _names(backends: set[str]) -> set[str]:
    return {name for backend in backends for name in (backend, f"/objects/{backend}")}
