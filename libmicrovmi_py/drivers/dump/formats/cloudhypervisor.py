# SPDX-License-Identifier: Apache-2.0
"""A snapshot of Cloud Hypervisor (version 40 and later): a folder with ``state.json`` and ``memory-ranges``.

The state is a tree of snapshots by name, each with its own state as a text of JSON. That of ``memory-manager`` tells
which ranges of memory are in the other file, one after the other, and all that the machine had; those below
``cpu-manager`` have what KVM told of each vCPU. https://github.com/cloud-hypervisor/cloud-hypervisor
(docs/snapshot_restore.md, vmm/src/memory_manager.rs, hypervisor/src/kvm).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise

from libmicrovmi_py.arch.state import VcpuState
from libmicrovmi_py.declare import Any
from libmicrovmi_py.drivers.dump.contents import Contents, Processors
from libmicrovmi_py.drivers.dump.image import MAX_PIECES, Image
from libmicrovmi_py.drivers.dump.kinds import joined as joined_spans
from libmicrovmi_py.drivers.dump.layout import Extent, joined
from libmicrovmi_py.drivers.dump.probing import Probe, Sure
from libmicrovmi_py.drivers.saved import kvmstate
from libmicrovmi_py.model import PHYSICAL_BITS, Architecture

BEGINS = (b'{"snapshots":{',)
ENDS = ("memory-ranges",)
HOLDS = ("state.json", "memory-ranges")

_STATE, _MEMORY = HOLDS
_LARGEST_STATE = 32 << 20
"""Some 80 KiB a vCPU, and the devices."""
_MOST_VCPUS = 1 << 12
_PRODUCER = "Cloud Hypervisor"
_MACHINES = {Architecture.X86: "x86_64", Architecture.AARCH64: "aarch64"}
_WAY_OUT = "restore it and make a core: ch-remote coredump"


def probe(image: Image) -> Probe | None:
    """By how the state begins; memory by its name, with a state beside it."""
    if image.start.startswith(BEGINS):
        return Probe(Sure.LIKELY, "the state of a machine of Cloud Hypervisor")
    state = image.beside(_STATE)
    if state is None or not state.start.startswith(BEGINS):
        return None
    return Probe(Sure.LIKELY, "the memory of a machine of Cloud Hypervisor")


def read(image: Image) -> Contents:
    """The memory in the folder, and what else the state tells."""
    state = image if image.start.startswith(BEGINS) else image.beside(_STATE)
    memory = image.beside(_MEMORY) if state is image else image
    if state is None or memory is None:
        raise image.refused(f"a part of a snapshot of {_PRODUCER}", f"put {_STATE} and {_MEMORY} into one folder")
    tree = _tree(state)
    told = _parsed(_at(tree, "snapshots", "memory-manager", "snapshot_data", "state"))
    ranges = _at(told, "memory_ranges", "data")
    if not isinstance(ranges, list):
        raise state.refused(f"the state of a machine of another version of {_PRODUCER}", _WAY_OUT)
    extents = sorted(extent for extent in _extents(state, memory, ranges) if extent.size)
    for one, other in pairwise(extents):
        if one.end > other.start:
            raise state.damaged(f"memory at {other.start:#x} is there twice")
    there = joined_spans((extent.start, extent.end) for extent in extents)
    exists = joined_spans([*_mappings(told), *there])
    processors = _processors(_at(tree, "snapshots", "cpu-manager", "snapshots"))
    machine = _MACHINES[processors.states[0].architecture] if processors.states else ""
    return Contents(joined(extents), processors, exists, exists == there, memory, _PRODUCER, machine)


def _tree(state: Image) -> object:
    if state.size > _LARGEST_STATE:
        raise state.refused(f"a state of {_PRODUCER} of {state.size} bytes", _WAY_OUT)
    tree = _parsed(state.read(0, state.size, "the state"))
    if tree is None:
        raise state.damaged("it is not a whole text of JSON")
    return tree


def _parsed(text: object) -> object:
    """What a text of JSON says; ``None`` if it is no such text."""
    try:
        return json.loads(text) if isinstance(text, (str, bytes)) else None
    except (ValueError, RecursionError):
        return None


def _at(value: object, *names: str) -> Any:
    """What has that path of names in a tree; ``None`` if nothing has."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _number(value: object) -> int | None:
    """An unsigned number of 64 bits, ``None`` if it is none."""
    return value if isinstance(value, int) and 0 <= value < 1 << 64 else None


def _extents(state: Image, memory: Image, ranges: list[object]) -> Iterator[Extent]:
    """The ranges in the order in which the memory's file has them."""
    if len(ranges) > MAX_PIECES:
        raise state.refused(f"a state of {_PRODUCER} of {len(ranges)} ranges of memory", _WAY_OUT)
    offset = 0
    for item in ranges:
        start, size = _number(_at(item, "gpa")), _number(_at(item, "length"))
        if start is None or size is None or start + size > 1 << PHYSICAL_BITS:
            raise state.damaged(f"range {str(item)[:80]!r} is no memory")
        yield Extent(start, memory.clipped(offset, size, f"memory from {start:#x} on"), offset)
        offset += size


def _mappings(told: object) -> Iterator[tuple[int, int]]:
    """(start, end) of all memory of the machine: some of it may have been shared, and is in files elsewhere."""
    mappings = _at(told, "guest_ram_mappings")
    for item in mappings[:MAX_PIECES] if isinstance(mappings, list) else ():
        start, size = _number(_at(item, "gpa")), _number(_at(item, "size"))
        if start is not None and size is not None and start + size <= 1 << PHYSICAL_BITS:
            yield start, start + size


def _processors(vcpus: object) -> Processors:
    names = [name for name in vcpus if re.fullmatch("[0-9]{1,4}", name)] if isinstance(vcpus, dict) else []
    if len(names) > _MOST_VCPUS:
        return Processors()
    told = [_parsed(_at(vcpus, name, "snapshot_data", "state")) for name in sorted(names, key=int)]
    kept = [_at(item, "Kvm") for item in told]
    if any(_bytes(_at(item, "core_regs"), kvmstate.SIZE_ARM_REGS) for item in kept):
        return Processors(len(kept), [VcpuState(Architecture.AARCH64, _arm(item)) for item in kept], producer=_PRODUCER)
    return Processors(len(kept), [VcpuState(Architecture.X86, _x86(item)) for item in kept], producer=_PRODUCER)


def _bytes(value: object, size: int) -> bytes:
    """A structure of at least so many bytes, which is a list of numbers; nothing if it is none."""
    try:
        content = bytes(value) if isinstance(value, list) else b""
    except (TypeError, ValueError):
        return b""
    return content if len(content) >= size else b""


def _x86(told: object) -> dict[str, int]:
    general = _bytes(_at(told, "regs"), kvmstate.SIZE_REGS)
    special = _bytes(_at(told, "sregs"), kvmstate.SIZE_SREGS)
    extended = _bytes(_at(told, "xcrs"), kvmstate.SIZE_XCRS)
    values = kvmstate.specific(_numbered(_at(told, "msrs"), "index", "data"))
    values |= kvmstate.general(general) if general else {}
    values |= kvmstate.special(special) if special else {}
    return values | (kvmstate.extended(extended) if extended else {})


def _arm(told: object) -> dict[str, int]:
    content, system = _bytes(_at(told, "core_regs"), kvmstate.SIZE_ARM_REGS), _at(told, "sys_regs")
    rows = [_bytes(row, 16)[:16] for row in system] if isinstance(system, list) else []
    numbers = {int.from_bytes(row[:8], "little"): int.from_bytes(row[8:], "little") for row in rows if row}
    return kvmstate.arm(content, numbers) if content else {}


def _numbered(rows: object, number: str, data: str) -> Mapping[int, int]:
    """Values by their numbers."""
    pairs = [(_number(_at(row, number)), _number(_at(row, data))) for row in rows] if isinstance(rows, list) else []
    return {index: value for index, value in pairs if index is not None and value is not None}
