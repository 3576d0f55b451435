# SPDX-License-Identifier: Apache-2.0
"""What is mapped in a process: a list of areas, or since 6.1 a tree of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from libmicrovmi_py.declare import TYPE_CHECKING, NamedTuple
from libmicrovmi_py.errors import IoError
from libmicrovmi_py.linux import paths
from libmicrovmi_py.linux.objects import Object, read
from libmicrovmi_py.model import U64_MAX

if TYPE_CHECKING:
    from libmicrovmi_py.linux.kernel import Kernel

MOST_AREAS = 1 << 17
_MOST_NODES = 1 << 15
_MOST_LEVELS = 16

_READ, _WRITE, _EXECUTE, _SHARED = 1, 2, 4, 0x80
"""Bits of an area's flags; the last is that it may be shared with those that write."""

_LEAF, _RANGE, _ALLOCATION = 1, 2, 3
"""Kinds of the nodes of a tree: with areas, with nodes, with nodes and the gaps between."""

_NODE_BITS = 0xFF
"""Of an entry: where a node is has none of them; they say what it is."""


class Mapping(NamedTuple):
    """A part of a process's memory: its first address, one past the last, rights as ``/proc/PID/maps`` has them.

    ``offset`` is where in the file it begins, in bytes. ``path`` is the file, what the kernel calls it, or empty.
    """

    start: int
    end: int
    rights: str
    offset: int
    path: bytes


def mappings(kernel: Kernel, memory: int) -> Iterator[Mapping]:
    """What is mapped in the memory whose ``mm_struct`` is at an address, ascending.

    Raises ``IoError`` for a tree or list that is damaged, or changes while it is read.
    """
    owner = read(kernel, "mm_struct", memory)
    names = paths.Paths(kernel)
    areas = _tree(kernel, owner) if "mm_mt" in owner else _list(kernel, owner)
    for area in islice(areas, MOST_AREAS):
        yield _mapping(kernel, owner, area, names)


def _list(kernel: Kernel, owner: Object) -> Iterator[Object]:
    at, last = owner.number("mmap"), 0
    for _ in range(MOST_AREAS):
        if not at:
            return
        area = read(kernel, "vm_area_struct", at)
        if area.number("vm_start") < last:
            break
        yield area
        at, last = area.number("vm_next"), area.number("vm_end")
    raise IoError("the list of a process's memory is damaged, or changed while it was read")


def _tree(kernel: Kernel, owner: Object) -> Iterator[Object]:
    """The areas of a maple tree: nodes with an entry for each range of addresses, the last of each in the node."""
    waiting, nodes = [(owner.number("mm_mt.ma_root"), 0)], 0
    while waiting:
        entry, level = waiting.pop()
        nodes += 1
        if nodes + len(waiting) > _MOST_NODES or level > _MOST_LEVELS:
            raise IoError("the tree of a process's memory is damaged: it has no end")
        if entry & 3 != 2 or entry < 4096:
            continue  # empty
        kind = entry >> 3 & 15
        entries = _entries(kernel, entry & ~_NODE_BITS, kind)
        if kind != _LEAF:
            waiting += [(item, level + 1) for item in reversed(entries)]
            continue
        yield from (read(kernel, "vm_area_struct", item) for item in entries)


def _entries(kernel: Kernel, address: int, kind: int) -> list[int]:
    """The entries of a node that are there."""
    if kind not in (_LEAF, _RANGE, _ALLOCATION):
        raise IoError(f"the tree of a process's memory is damaged: it has a node of kind {kind}")
    node = read(kernel, "maple_arange_64" if kind == _ALLOCATION else "maple_range_64", address)
    found = []
    for entry, last in zip(node.numbers("slot"), [*node.numbers("pivot"), U64_MAX], strict=False):
        if entry:
            found.append(entry)
        if not last or last == U64_MAX:
            break
    return found


def _mapping(kernel: Kernel, owner: Object, area: Object, names: paths.Paths) -> Mapping:
    start, end = area.number("vm_start"), area.number("vm_end")
    flags = area.number("vm_flags")
    rights = "".join(letter if flags & bit else "-" for letter, bit in (("r", _READ), ("w", _WRITE), ("x", _EXECUTE)))
    rights += "s" if flags & _SHARED else "p"
    if file := area.number("vm_file"):
        return Mapping(start, end, rights, area.number("vm_pgoff") << 12, names.of_file(file))
    return Mapping(start, end, rights, 0, _name(kernel, owner, area))


def _name(kernel: Kernel, owner: Object, area: Object) -> bytes:
    """What the kernel calls memory that is of no file."""
    start, end = area.number("vm_start"), area.number("vm_end")
    operations, names = area.number("vm_ops"), kernel.symbols.get("special_mapping_name")
    if operations and names and read(kernel, "vm_operations_struct", operations).number("name") == names:
        return kernel.text(read(kernel, "vm_special_mapping", area.number("vm_private_data")).number("name"), 64)
    if start <= owner.number("brk") and end >= owner.number("start_brk"):
        return b"[heap]"
    return b"[stack]" if start <= owner.number("start_stack") <= end else b""
