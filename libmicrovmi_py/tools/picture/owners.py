# SPDX-License-Identifier: Apache-2.0
"""Whose frames of a Linux guest are: parts of the kernel, and the pages of processes."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.errors import AccessError, MicrovmiError, escaped
from libmicrovmi_py.linux.kernel import Kernel
from libmicrovmi_py.linux.tasks import Task, tasks
from libmicrovmi_py.model import PAGE_SIZE
from libmicrovmi_py.paging import Paging
from libmicrovmi_py.tools.picture.contents import Owner

if TYPE_CHECKING:
    from libmicrovmi_py.machine.microvmi import Microvmi

MOST_OWNERS = 1 << 20
"""So many pieces of memory are told at the most: page tables may name more than there is memory."""

MOST_PROCESSES = 4096

SEVERAL = "several processes"

_IMAGE = (
    ("_text", "_etext", "kernel code"),
    ("__start_rodata", "__end_rodata", "kernel data, read-only"),
    ("_sdata", "_edata", "kernel data"),
    ("__init_begin", "__init_end", "kernel, of its start"),
    ("__bss_start", "__bss_stop", "kernel data, zero at its start"),
)
_MODULES = {"x86_64": (0xFFFF_FFFF_C000_0000, 0xFFFF_FFFF_FF00_0000)}
"""Where kernels keep their modules, if that is always the same place."""

_USER_END = 1 << 47

_LEVELS = {Paging.X86_4_LEVELS: 4, Paging.X86_5_LEVELS: 5}
_ENTRIES = struct.Struct("<512Q")
_PRESENT, _LARGE, _ADDRESS = 1, 1 << 7, 0x000F_FFFF_FFFF_F000
_DESCRIPTOR = 64
"""Bytes of a ``struct page``."""

MOST_TABLES = 1 << 17


def owners(machine: Microvmi) -> list[Owner]:
    """What is known of a machine's frames, in the order of addresses.

    Raises ``NotSupportedError`` if no Linux kernel is found; of one that tells no processes there are its own parts.
    """
    kernel = Kernel.find(machine)
    processes = _processes(kernel)
    found = list(itertools.islice(_kernel(kernel), MOST_OWNERS))
    found += _apart(itertools.islice(itertools.chain.from_iterable(map(_process, processes)), MOST_OWNERS))
    found += _page_tables(kernel, processes)
    return sorted(owner for owner in found if owner.start < machine.max_addr)


def _kernel(kernel: Kernel) -> Iterator[Owner]:
    for first, last, name in _IMAGE:
        start, end = kernel.symbols.get(first), kernel.symbols.get(last)
        if start is not None and end is not None and start < end:
            yield from _mapped(kernel, start, end, name)
    if kernel.architecture in _MODULES:
        yield from _mapped(kernel, *_MODULES[kernel.architecture], "kernel modules")
    yield from _descriptors(kernel)


def _mapped(kernel: Kernel, start: int, end: int, name: str) -> Iterator[Owner]:
    """Where some of the kernel's virtual memory is."""
    try:
        for item in kernel.space.mapped(start, end):
            yield Owner(item.physical_address, item.size, name)
    except AccessError:
        return


def _descriptors(kernel: Kernel) -> Iterator[Owner]:
    """The array that has a ``struct page`` for each frame."""
    try:
        place = kernel.symbols.address("vmemmap_base")
        base = int.from_bytes(kernel.space.read_virtual(place, 8), "little")
    except (KeyError, AccessError):
        return
    end = base + kernel.machine.max_addr // PAGE_SIZE * _DESCRIPTOR
    if base < end < 1 << 64:
        yield from _mapped(kernel, base, end, "kernel, descriptors of pages")


def _page_tables(kernel: Kernel, processes: Iterable[Task]) -> Iterator[Owner]:
    """Those of the kernel and of processes; of the x86 only."""
    if (levels := _LEVELS.get(kernel.space.tables.paging)) is None:
        return
    bases = [kernel.space.tables.base, *(task.pages for task in processes)]
    open_ = [(base & _ADDRESS, levels) for base in bases]
    seen: set[int] = set()
    while open_ and len(seen) < MOST_TABLES:
        address, level = open_.pop()
        if address in seen:
            continue
        seen.add(address)
        yield Owner(address, PAGE_SIZE, "page tables")
        if level > 1:
            open_ += [(below, level - 1) for below in _below(kernel.machine, address) if below not in seen]


def _below(machine: Microvmi, address: int) -> Iterator[int]:
    """The tables that a table names; none of one that is no memory."""
    try:
        content = machine.read_physical(address, PAGE_SIZE)
    except AccessError:
        return
    for entry in _ENTRIES.unpack(content):
        if entry & _PRESENT and not entry & _LARGE:
            yield entry & _ADDRESS


def _processes(kernel: Kernel) -> list[Task]:
    """All of them; none of a kernel that does not tell them."""
    found: list[Task] = []
    with suppress(MicrovmiError):
        found += itertools.islice(tasks(kernel), MOST_PROCESSES)
    return found


def _process(task: Task) -> Iterator[Owner]:
    """One that ends meanwhile is told as far as it was there."""
    space = task.space
    if space is None:
        return
    name = f"{escaped(task.name.decode(errors='replace'))} (process {task.pid})"
    try:
        for item in space.mapped(0, _USER_END):
            yield Owner(item.physical_address, item.size, name)
    except AccessError:
        return


def _apart(mapped: Iterator[Owner]) -> list[Owner]:
    """The same frames without one twice: those that more than one name has are told as such. Neighbours are joined."""
    edges: list[tuple[int, int, str]] = []
    for owner in mapped:
        edges += [(owner.start, 1, owner.name), (owner.end, -1, owner.name)]
    found: list[Owner] = []
    open_: dict[str, int] = {}
    before = 0
    for address, change, name in sorted(edges):
        if open_ and address > before:
            _append(found, before, address, next(iter(open_)) if len(open_) == 1 else SEVERAL)
        before = address
        open_[name] = open_.get(name, 0) + change
        if not open_[name]:
            del open_[name]
    return found


def _append(found: list[Owner], start: int, end: int, name: str) -> None:
    last = found[-1] if found else None
    if last is not None and last.end == start and last.name == name:
        found[-1] = last._replace(size=end - last.start)
    else:
        found.append(Owner(start, end - start, name))
