# SPDX-License-Identifier: Apache-2.0
"""The memory map: guest-physical ranges from the monitor, the host memory behind them from ``/proc``."""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from libmicrovmi_py.declare import NamedTuple, dataclass, replace
from libmicrovmi_py.drivers.base import Region, Source
from libmicrovmi_py.errors import IoError, logger
from libmicrovmi_py.model import PHYSICAL_BITS, MemoryKind
from libmicrovmi_py.transport.backing import open_backings
from libmicrovmi_py.transport.fds import OwnedFd
from libmicrovmi_py.transport.life import life_of
from libmicrovmi_py.transport.mapping import HostMapping
from libmicrovmi_py.transport.processes import Process, Vma
from libmicrovmi_py.transport.procmem import ProcessMemory, ReadOnlyMemory
from libmicrovmi_py.transport.qmp import QmpClient, QmpCommandError
from libmicrovmi_py.transport.shape import hexadecimal, integer, record, text

_log = logger(__name__)

_SYSTEM = ' AS "memory", '
_RANGE = re.compile(
    r"^ +(?P<start>[0-9a-f]+)-(?P<last>[0-9a-f]+) \((?:prio -?[0-9]+, )?(?:nv-)?(?P<kind>ram|romd?)\): "
    r"(?P<name>.+?)(?: @(?P<offset>[0-9a-f]+))?(?: KVM)?(?: owner:.*)?$"
)
_HOST = re.compile(r"Host virtual address for 0x[0-9a-f]+ \((.*)\) is 0x([0-9a-f]+)\s*")
_ATTEMPTS = 5

_FILES = 288
"""Files of one QEMU that are mapped: it has 256 DIMMs at the most. Each takes a descriptor of the host."""

_PARTS = 1 << 16
"""Mappings of QEMU's that the guest's memory may lie in: some of each RAM block's."""


@dataclass(frozen=True, slots=True)
class FlatRange:
    """A line of the flat view: guest address and size in bytes, read-only or not, RAM block and offset in it."""

    start: int
    size: int
    read_only: bool
    block: str
    offset: int


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


def parse_flat_view(text: str) -> list[FlatRange]:
    """The memory in the flat view of the address space ``memory``, out of ``info mtree -f``.

    Left out is what is not memory: ``i/o``, and ``ramd``, the registers of a passed-through device. Raises ``IoError``
    for addresses that no machine has.
    """
    for view in text.split("FlatView #"):
        if _SYSTEM in view:
            return [_flat_range(match) for line in view.split("\n") if (match := _RANGE.match(line))]
    return []


def _flat_range(match: re.Match[str]) -> FlatRange:
    start, last = (hexadecimal(match[name], "an address in info mtree", PHYSICAL_BITS) for name in ("start", "last"))
    if last < start:
        raise IoError(f"info mtree tells a range from {start:#x} to {last:#x}")
    offset = hexadecimal(match["offset"] or "0", "an offset in info mtree")
    return FlatRange(start, last + 1 - start, match["kind"] != "ram", match["name"], offset)


def main_blocks(ranges: Sequence[FlatRange], backends: set[str]) -> set[str]:
    """The RAM blocks that are the machine's main memory.

    Those of ``-object memory-backend-*`` and of the default backend (older machine types write ``/objects/ID``), and
    the block at address 0, which QEMU before 5.0 made without a backend. If that gives none, the largest one.
    """
    writable = [item for item in ranges if not item.read_only]
    names = {name for backend in backends for name in (backend, f"/objects/{backend}")}
    found = {item.block for item in writable if item.block in names or item.start == 0}
    if not found and writable:
        found = {max(writable, key=lambda item: item.size).block}
    return found


def read_extents(client: QmpClient) -> list[Extent]:
    """Ask the monitor for the machine's memory, in ascending order.

    A guest that runs may change its map meanwhile; then it is read again, a few times. Raises ``IoError`` if it still
    changes.
    """
    backends = _backends(client)
    for _ in range(_ATTEMPTS):
        ranges = parse_flat_view(client.human("info mtree -f"))
        hosts = [_host_address(client, item) for item in ranges]
        if ranges and None not in hosts:
            main, plugged = main_blocks(ranges, backends), _plugged(client)
            return _joined(_extent(item, main, plugged, host or 0) for item, host in zip(ranges, hosts, strict=True))
    if not ranges:
        raise IoError("the machine has no memory: it was started with -M none, or nothing has been plugged in yet")
    raise IoError("QEMU's memory map keeps changing: pause the machine and try again")


def _backends(client: QmpClient) -> set[str]:
    """The ids of the memory backends, but for those whose memory an ivshmem device shares with others."""
    ids = {text(item["id"], "the id of a memory backend") for item in client.records("query-memdev") if "id" in item}
    for folder in ("/machine/peripheral", "/machine/peripheral-anon"):
        for item in client.records("qom-list", path=folder):
            if "ivshmem" in text(item.get("type"), "the type of a device"):
                ids.discard(_backend_of(client, f"{folder}/{text(item.get('name'), 'the name of a device')}"))
    return ids


def _backend_of(client: QmpClient, device: str) -> str:
    try:
        return text(client.execute("qom-get", path=device, property="memdev"), "a device's memory").rpartition("/")[2]
    except QmpCommandError:
        return ""


def _host_address(client: QmpClient, item: FlatRange) -> int | None:
    """Where in QEMU's process a range is; ``None`` if the map has changed since."""
    match = _HOST.fullmatch(client.human(f"gpa2hva {item.start:#x}"))
    return hexadecimal(match[2], "an address of gpa2hva") if match and match[1] == item.block else None


def _plugged(client: QmpClient) -> list[tuple[int, int]]:
    """Start and end of the guest addresses that memory devices (DIMMs and the like) have, or may come to have."""
    return [_span(record(item.get("data"), "a memory device")) for item in client.records("query-memory-devices")]


def _span(device: dict[str, object]) -> tuple[int, int]:
    start = _bytes(device, "addr", "memaddr")
    return start, start + _bytes(device, "max-size", "size")


def _bytes(device: dict[str, object], *names: str) -> int:
    """The first of these properties that a memory device has, in bytes; 0 if it has none of them."""
    value = next((device[name] for name in names if name in device), 0)
    return integer(value, f"{names[0]} of a memory device", 0, (1 << 64) - 1)


def _extent(item: FlatRange, main: set[str], plugged: Sequence[tuple[int, int]], host: int) -> Extent:
    """A range as a :class:`Extent`. Memory of devices, and main memory that was plugged in, may be unplugged."""
    kind = MemoryKind.RAM if item.block in main else MemoryKind.DEVICE
    kind = MemoryKind.ROM if item.read_only else kind
    unsteady = item.block not in main or any(start <= item.start < end for start, end in plugged)
    return Extent(item.start, item.size, kind, item.block, item.offset, host, unsteady)


def _joined(extents: Iterator[Extent]) -> list[Extent]:
    result: list[Extent] = []
    for extent in extents:
        if result and extent.continues(result[-1]):
            last = result.pop()
            extent = replace(last, size=last.size + extent.size)
        result.append(extent)
    return result


def is_filled(client: QmpClient) -> bool:
    """Whether all of the guest's memory has arrived: during a post-copy migration parts of it follow when touched.

    A machine that waits for a migration may be in such a one at any time.
    """
    waits = client.record("query-status").get("status") == "inmigrate"
    return not waits and "postcopy" not in text(
        client.record("query-migrate").get("status", ""), "the status of a migration"
    )


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
        self._files: dict[Vma, HostMapping | None] = {}
        self._filled = False

    def regions(self, extents: Sequence[Extent], *, filled: bool) -> tuple[Region, ...]:
        """Regions for ``extents``. Raises ``IoError`` if the process has no memory there (any more).

        ``filled`` is whether all memory that the guest has is in the process: untouched pages of it are then zero. If
        not, nothing is mapped: a page that is touched before it arrived could not arrive any more.
        """
        self._filled = filled
        vmas = self._process.mappings()
        ends = [vma.end for vma in vmas]
        every = (part for extent in extents for part in _parts(extent, vmas, ends))
        parts = list(itertools.islice(every, _PARTS + 1))
        if len(parts) > _PARTS:
            raise IoError(f"QEMU has the guest's memory in more than {_PARTS} mappings: that cannot be")
        if filled:
            self._open_files(part.vma for part in parts if part.vma.is_shared_file)
        return tuple(self._region(part) for part in parts)

    def close(self) -> None:
        """Close all sources."""
        self._memory.close()
        for mapping in self._files.values():
            if mapping is not None:
                mapping.close()

    def _region(self, part: _Part) -> Region:
        source, offset = self._source(part.vma, part.host)
        return Region(part.start, part.size, part.kind, source, offset, part.unsteady)

    def _source(self, vma: Vma, host: int) -> tuple[Source, int]:
        mapping = self._files.get(vma) if self._filled and vma.is_shared_file else None
        if mapping:
            return mapping, host - vma.start
        memory = self._memory if self._filled else self._arriving
        if not vma.writable:
            return ReadOnlyMemory(memory), host
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
