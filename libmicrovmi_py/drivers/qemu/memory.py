# SPDX-License-Identifier: Apache-2.0
"""The host memory behind the guest's, from ``/proc``."""

from __future__ import annotations

import bisect
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence

from libmicrovmi_py.declare import TYPE_CHECKING, NamedTuple, replace
from libmicrovmi_py.drivers.base import Region, Source
from libmicrovmi_py.drivers.qemu.flatview import Extent
from libmicrovmi_py.errors import IoError, PermissionDeniedError, logger
from libmicrovmi_py.model import MemoryKind
from libmicrovmi_py.transport.backing import open_backings
from libmicrovmi_py.transport.fds import OwnedFd, StandardStreamsHeld
from libmicrovmi_py.transport.life import life_of
from libmicrovmi_py.transport.mapping import HostMapping
from libmicrovmi_py.transport.processes import Process, Vma
from libmicrovmi_py.transport.procmem import Anonymous, Arriving, Movable, Place, ProcessMemory, ReadOnlyMemory

if TYPE_CHECKING:
    from libmicrovmi_py.drivers.qemu.files import SharedFiles
    from libmicrovmi_py.transport.qmp import QmpClient

_log = logger(__name__)

_FILES = 288
"""Files of one QEMU that are mapped: it has 256 DIMMs at the most. Each takes a descriptor of the host."""

_PARTS = 1 << 16
"""Mappings of QEMU's that the guest's memory may lie in: some of each RAM block's."""


_InProcess = ProcessMemory | Anonymous | Arriving | ReadOnlyMemory


class HostMemory:
    """The sources behind the guest's memory: one for the process, one for each file that it maps shared.

    What is read and written is what the process itself could: a file only if the process has it mapped shared, for
    writing only where that mapping is writable; everything else through the process. A file stays mapped until
    ``close()``, as readers may still hold regions of an older map.
    """

    def __init__(self, process: Process, *, mapped: bool = True) -> None:
        """``mapped`` is whether files are mapped, or else read. Raises ``PermissionDeniedError`` or ``VmGoneError``."""
        self._process = process
        self._mapped = mapped
        self._life = life_of(process)
        self._memory = ProcessMemory(process, self._life)
        self._anonymous = self._memory.anonymous()
        self._arriving = self._memory.arriving()
        self._read_only = ReadOnlyMemory(self._memory), ReadOnlyMemory(self._arriving)
        self._files: dict[Vma, HostMapping | None] = {}
        self._filled = False
        self._maps: OwnedFd | None = None
        self._movables: dict[tuple[int, Place], Movable] = {}
        self.has_unsteady_files = False  # whether memory that may be unplugged is in files, of the last regions

    def ask(self, client: QmpClient, extents: Sequence[Extent]) -> None:
        """Nothing: the process itself is looked at."""

    def regions(self, extents: Sequence[Extent], *, filled: bool) -> tuple[Region, ...]:
        """Regions for ``extents``. Raises ``IoError`` if the process has no memory there (any more).

        ``filled`` is whether all memory that the guest has is in the process: untouched pages of it are then zero. If
        not, nothing is mapped: a page that is touched before it arrived could not arrive any more.
        """
        self._filled = filled
        if self.has_moved:
            self._movables.clear()
        vmas = self._process.mappings((extent.host, extent.host + extent.size) for extent in extents)
        ends = [vma.end for vma in vmas]
        every = (part for extent in extents for part in _parts(extent, vmas, ends))
        parts = list(itertools.islice(every, _PARTS + 1))
        if len(parts) > _PARTS:
            raise IoError(f"QEMU has the guest's memory in more than {_PARTS} mappings: that cannot be")
        if filled:
            self._open_files(part.vma for part in parts if part.vma.is_shared_file)
        self.has_unsteady_files = any(part.unsteady and part.vma.is_shared_file for part in parts)
        regions = tuple(self._region(part) for part in parts)
        used = {id(region.source) for region in regions}
        self._movables = {key: source for key, source in self._movables.items() if id(source) in used}
        return regions

    @property
    def has_moved(self) -> bool:
        """Whether a read has found that memory of the last regions is not where it was."""
        return any(source.moved for source in self._movables.values())

    def close(self) -> None:
        """Close all sources."""
        self._memory.close()
        for mapping in self._files.values():
            if mapping is not None:
                mapping.close()

    def _region(self, part: _Part) -> Region:
        source, offset = self._source(part.vma, part.host)
        held = self._movable(source, part) if part.unsteady and self._filled else source
        return Region(part.start, part.size, part.kind, held, offset, part.unsteady)

    def _movable(self, source: HostMapping | _InProcess, part: _Part) -> Source:
        """The same, in a mapping that QEMU may give up; as it is if it is ours, or the system shows no mappings."""
        if self._maps is None:
            self._maps = self._memory.maps()
        if self._maps is None or isinstance(source, HostMapping):
            return source
        place = _place(part, self._maps)
        return self._movables.setdefault((id(source), place), Movable(source, place))

    def _source(self, vma: Vma, host: int) -> tuple[HostMapping | _InProcess, int]:
        mapping = self._files.get(vma) if self._filled and vma.is_shared_file else None
        if mapping:
            return mapping, host - vma.start
        if not vma.writable:
            return self._read_only[0 if self._filled else 1], host
        memory = self._memory if self._filled else self._arriving
        return (self._anonymous if self._filled and vma.is_anonymous else memory), host

    def _open_files(self, vmas: Iterable[Vma]) -> None:
        """Map the files that are not mapped yet. Too many of them are read from the process: no QEMU has so many."""
        new = [vma for vma in dict.fromkeys(vmas) if vma not in self._files][: max(0, _FILES - len(self._files))]
        found = open_backings(self._process, new)
        for vma in new:
            self._files[vma] = self._map(vma, found.get(vma))

    def _map(self, vma: Vma, fd: OwnedFd | None) -> HostMapping | None:
        if fd is None:
            _log.debug("%s cannot be opened: reading the memory of process %d", vma.path, self._process.pid)
            return None
        try:
            size = vma.end - vma.start
            return HostMapping(fd, vma.offset, size, writable=vma.writable, mapped=self._mapped, life=self._life)
        except (OSError, ValueError) as err:
            _log.debug("%s cannot be mapped (%s): reading the memory of process %d", vma.path, err, self._process.pid)
            return None


class _Part(NamedTuple):
    """Guest memory that lies in one mapping of the process.

    Guest address, size, kind, mapping, host address, and whether it may be unplugged.
    """

    start: int
    size: int
    kind: MemoryKind
    vma: Vma
    host: int
    unsteady: bool


def _place(part: _Part, maps: OwnedFd) -> Place:
    """The line of the list that a part lies in, or the lines if there are several."""
    vma = part.vma
    start, end = vma.line(part.host)
    if pieces := part.host + part.size > end:
        start, end = vma.start, vma.end
    offset = vma.offset + start - vma.start if vma.inode else 0
    device = os.major(vma.device) << 32 | os.minor(vma.device)
    return Place(maps, start, end, offset, device, vma.inode, vma.writable, vma.shared, pieces)


def _parts(extent: Extent, vmas: Sequence[Vma], ends: Sequence[int]) -> Iterator[_Part]:
    """The mappings that hold an extent; ``ends`` are their ends, in ascending order."""
    done = 0
    for index in range(bisect.bisect_right(ends, extent.host), len(vmas)):
        vma, begin = vmas[index], extent.host + done
        if done == extent.size or vma.start > begin:
            break
        size = min(extent.size - done, vma.end - begin)
        yield _Part(extent.start + done, size, extent.kind, vma, begin, extent.unsteady)
        done += size
    if done != extent.size:
        raise IoError(f"QEMU's memory map changed while it was read, at {extent.start + done:#x}: try again")


def memory_of(process: Process, mapped: bool) -> HostMemory | SharedFiles:
    """The memory of a QEMU: read through the process, or through its files if the process may not be looked into."""
    try:
        return HostMemory(process, mapped=mapped)
    except PermissionDeniedError as err:
        with StandardStreamsHeld():
            from libmicrovmi_py.drivers.qemu.files import SharedFiles
        return SharedFiles(process, err, mapped=mapped)


def read_from(regions: tuple[Region, ...], source: Source | None) -> tuple[Region, ...]:
    """The same regions, all of that source if there is one."""
    return tuple(replace(region, source=source) for region in regions) if source else regions
