# SPDX-License-Identifier: Apache-2.0
"""A snapshot of Firecracker since version 1.7: the state, and a file of the memory beside it.

The memory is one region after the other without the holes for devices, whose places are those of the version that the
state tells. Neither file names the other: names that are usual are tried.
https://github.com/firecracker-microvm/firecracker (docs/snapshotting, src/vmm/src/arch).
"""

from __future__ import annotations

from collections.abc import Iterator

from libmicrovmi_py.arch.state import VcpuState
from libmicrovmi_py.drivers.dump.contents import Contents, Processors
from libmicrovmi_py.drivers.dump.firecracker_state import Told, told
from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.layout import Extent
from libmicrovmi_py.drivers.dump.probing import Probe, Sure
from libmicrovmi_py.model import PHYSICAL_BITS, Architecture

BEGINS = (
    b"\0\0\x64\x86\x84\x19\x10\x07",
    b"\0\0\xaa\xaa\x84\x19\x10\x07",
    b"\0\0\0\x64\x86\x84\x19\x10\x07",
    b"\0\0\0\xaa\xaa\x84\x19\x10\x07",
)
ENDS = (".mem", "mem_file", "memfile")
HOLDS = ("snapshot_file", "mem_file")

_MEMORIES = ("mem_file", "memfile", "vm.mem", "memory")
_STATES = ("snapshot_file", "snapfile", "vmstate", "snapshot.vmstate")
_STATE_ENDINGS = (".vmstate", ".snap", ".state")
_PRODUCER = "Firecracker"
_NEW_HOLES = 8
"""The version of snapshots since which the hole below 4 GiB is larger, and one at 256 GiB."""
_MIB, _GIB = 1 << 20, 1 << 30
_ARM_START = 2 * _GIB


def probe(image: Image) -> Probe | None:
    """By the magic of a state; memory by its name, with a state beside it."""
    if image.start.startswith(BEGINS):
        return Probe(Sure.CERTAIN, "the state of a Firecracker machine")
    return Probe(Sure.LIKELY, "the memory of a Firecracker machine") if _state_beside(image) else None


def read(image: Image) -> Contents:
    """The memory beside the state, and what else that tells."""
    state = image if image.start.startswith(BEGINS) else _state_beside(image)
    if state is None:
        raise image.refused("the memory of a Firecracker machine without its state", f"put {image.stem}.snap beside it")
    found = told(state)
    memory = _memory_beside(state) if state is image else image
    if memory is None:
        raise image.refused("the state of a Firecracker machine alone", f"put its memory {image.stem}.mem beside it")
    if memory.size > found.size:
        more = memory.size - found.size
        memory.opening.say(f"{memory.path} has {more:#x} bytes of memory that was plugged in: not read")
    extents = list(_extents(memory, found))
    states = [VcpuState(Architecture.X86, values) for values in found.vcpus]
    machine = "x86_64" if found.x86 else "aarch64"
    return Contents(
        extents, Processors(len(states), states, producer=_PRODUCER), None, True, memory, _PRODUCER, machine
    )


def _state_beside(image: Image) -> Image | None:
    for name in (*(image.stem + ending for ending in _STATE_ENDINGS), *_STATES):
        state = image.beside(name)
        if state is not None and state.start.startswith(BEGINS):
            return state
    return None


def _memory_beside(state: Image) -> Image | None:
    for name in (f"{state.stem}.mem", *_MEMORIES):
        memory = state.beside(name)
        if memory is not None:
            return memory
    return None


def _extents(memory: Image, found: Told) -> Iterator[Extent]:
    """The regions between the holes of that version."""
    holes = [(256 * _GIB, 512 * _GIB)] if found.version >= _NEW_HOLES else []
    if found.x86:
        holes.insert(0, (4 * _GIB - (_GIB if holes else 768 * _MIB), 4 * _GIB))
    start, offset = 0 if found.x86 else _ARM_START, 0
    for hole, behind in [*holes, (1 << PHYSICAL_BITS, 0)]:
        size = min(found.size - offset, hole - start)
        there = memory.clipped(offset, size, f"memory from {start:#x} on") if size else 0
        if there:
            yield Extent(start, there, offset)
        start, offset = behind, offset + size
