# SPDX-License-Identifier: Apache-2.0
"""VMware: what a machine was when it was suspended (vmss) or at a snapshot (vmsn), and its memory, there or beside it.

Memory is a block in the state, or a file of the same name that ends in vmem. It has the regions of the machine one
after the other, without the hole below 4 GiB; where they belong is in the state's group ``memory``
(``regionsCount``; ``regionPPN``, ``regionPageNum`` and ``regionSize`` of each, in pages). A machine without regions has
its memory from 0 on. Who names the memory means the state beside it too.

As https://github.com/crash-utility/crash (vmware_vmss.c) and Volatility read them.
"""

from __future__ import annotations

from itertools import pairwise

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.dump.contents import Contents
from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.layout import Extent, joined
from libmicrovmi_py.drivers.dump.probing import Probe, Sure
from libmicrovmi_py.drivers.dump.views import Part, View
from libmicrovmi_py.drivers.dump.vmware_groups import Groups, Tag
from libmicrovmi_py.drivers.dump.vmware_vcpus import processors
from libmicrovmi_py.model import PAGE_SHIFT, PHYSICAL_BITS

BEGINS = (b"\xd0\xbe\xd2\xbe", b"\xd1\xba\xd1\xba", b"\xd2\xba\xd2\xba", b"\xd2\xbe\xd2\xbe", b"\xd3\xbe\xd3\xbe")
ENDS = (".vmem",)

_STATES = (".vmss", ".vmsn")
_PARTS = ("regionPPN", "regionPageNum", "regionSize")
_CONVERT = "convert it to a core: vmss2core"


def probe(image: Image) -> Probe | None:
    """By the magic of a state; memory by its name, if a state is beside it."""
    if image.start.startswith(BEGINS):
        return Probe(Sure.CERTAIN, "the state of a VMware machine")
    return Probe(Sure.LIKELY, "the memory of a VMware machine") if _state_beside(image) else None


def read(image: Image) -> Contents:
    """The memory in the file or beside it, and what else it tells."""
    state = image if image.start.startswith(BEGINS) else _state_beside(image)
    if state is None:
        ways = f"put the state {image.stem}.vmss or {image.stem}.vmsn beside it, or take it as raw"
        raise image.refused("the memory of a VMware machine without its state", ways)
    groups = Groups(state)
    told = _told(groups)
    memory = _memory_of(image, told) if state is image else image
    producer = _producer(groups)
    extents = _extents(state, memory, told)
    return Contents(extents, processors(groups, producer), image=memory, producer=producer, machine="x86_64")


def _state_beside(image: Image) -> Image | None:
    """The state that belongs to a file of memory: the first that there is, and that looks like one."""
    for ending in _STATES:
        state = image.beside(image.stem + ending)
        if state is not None and state.start.startswith(BEGINS):
            return state
    return None


class _Told(NamedTuple):
    """What the group ``memory`` says: the block that memory is in, and the numbers of each region."""

    block: Tag | None
    number: int
    regions: dict[tuple[str, int], int]


def _told(groups: Groups) -> _Told:
    block, count, regions = None, 0, dict[tuple[str, int], int]()
    for tag in groups.tags("memory"):
        if tag.name == "regionsCount" and not tag.indices:
            count = groups.number(tag)
        elif tag.name in _PARTS and len(tag.indices) == 1:
            regions[tag.name, tag.indices[0]] = groups.number(tag)
        elif tag.name == "Memory" and tag.block and tag.size:
            if block is not None:
                raise groups.image.refused("the state of a VMware machine with memory in several blocks", _CONVERT)
            block = tag
    return _Told(block, count, regions)


def _memory_of(state: Image, told: _Told) -> Image:
    """The block of the state that memory is in, or the file beside it."""
    if told.block is None:
        beside = state.beside(f"{state.stem}.vmem")
        if beside is None:
            raise state.refused("the state of a VMware machine alone", f"put its memory {state.stem}.vmem beside it")
        return beside
    if told.block.packed:
        raise state.refused("the state of a VMware machine with compressed memory", _CONVERT)
    size = state.clipped(told.block.offset, told.block.size, "memory")
    return View(state.path, [Part(0, size, state, told.block.offset)])


def _extents(state: Image, memory: Image, told: _Told) -> list[Extent]:
    """Where the regions are in the memory's image."""
    if not told.number:
        return [Extent(0, memory.size, 0)][not memory.size :]
    extents: list[Extent] = []
    for index in range(told.number):
        parts = [told.regions.get((name, index)) for name in _PARTS]
        if None in parts:
            raise state.damaged(f"it has {told.number} regions of memory, and does not tell where number {index} is")
        start, offset, size = ((part or 0) << PAGE_SHIFT for part in parts)
        if start + size > 1 << PHYSICAL_BITS:
            raise state.damaged(f"region {index} of its memory has {size:#x} bytes from {start:#x} on")
        extents.append(Extent(start, memory.clipped(offset, size, f"memory from {start:#x} on"), offset))
    extents.sort()
    for one, other in pairwise(extents):
        if one.end > other.start:
            raise state.damaged(f"memory at {other.start:#x} is there twice")
    return joined(extent for extent in extents if extent.size)


def _producer(groups: Groups) -> str:
    """The product that wrote the state, and its version."""
    words = {}
    for tag in groups.tags("Checkpoint"):
        if tag.name in ("ProductName", "VersionNumber"):
            text = groups.content(tag).partition(b"\0")[0].decode("ascii", "replace")
            words[tag.name] = "".join(letter for letter in text[:40] if letter.isprintable())
    return f"{words.get('ProductName') or 'VMware'} {words.get('VersionNumber', '')}".strip()
