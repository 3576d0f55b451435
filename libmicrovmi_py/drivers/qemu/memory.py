# SPDX-License-Identifier: Apache-2.0
"""The memory map: guest-physical ranges from the monitor, the host memory behind them from ``/proc``."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from libmicrovmi_py.drivers.base import Region, Source
from libmicrovmi_py.errors import IoError
from libmicrovmi_py.model import MemoryKind
from libmicrovmi_py.transport.backing import open_backing
from libmicrovmi_py.transport.mapping import HostMapping
from libmicrovmi_py.transport.processes import Process, Vma
from libmicrovmi_py.transport.procmem import ProcessMemory
from libmicrovmi_py.transport.qmp import QmpClient, QmpCommandError

_log = logging.getLogger(__name__)

_SYSTEM = ' AS "memory", '
_RANGE = re.compile(
    r"^ +(?P<start>[0-9a-f]+)-(?P<last>[0-9a-f]+) \((?:prio -?\d+, )?(?:nv-)?(?P<kind>ram|romd?)\): "
    r"(?P<name>.+?)(?: @(?P<offset>[0-9a-f]+))?(?: KVM)?(?: owner:.*)?$"
)
_HOST = re.compile(r"Host virtual address for 0x[0-9a-f]+ \((.*)\) is (0x[0-9a-f]+)")
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class FlatRange:
    """A line of the flat view: guest address and size in bytes, read-only or not, RAM block and offset in it."""

    start: int
    size: int
    read_only: bool
    block: str
    offset: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Guest memory that lies in one piece of the host's: guest address, size, kind, RAM block, host address."""

    start: int
    size: int
    kind: MemoryKind
    block: str
    host: int

    def continues(self, other: Piece) -> bool:
        """Whether this piece follows ``other`` in the guest and in the host, and is the same memory."""
        distance = other.size
        same = (self.kind, self.block) == (other.kind, other.block)
        return same and self.start == other.start + distance and self.host == other.host + distance


def parse_flat_view(text: str) -> list[FlatRange]:
    """The memory in the flat view of the address space ``memory``, out of ``info mtree -f``.

    Left out is what is not memory: ``i/o``, and ``ramd``, the registers of a passed-through device.
    """
    for view in text.split("FlatView #"):
        if _SYSTEM in view:
            return [_flat_range(match) for line in view.split("\n") if (match := _RANGE.match(line))]
    return []


def _flat_range(match: re.Match[str]) -> FlatRange:
    start, last = int(match["start"], 16), int(match["last"], 16)
    read_only = match["kind"] != "ram"
    return FlatRange(start, last + 1 - start, read_only, match["name"], int(match["offset"] or "0", 16))


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


def read_pieces(client: QmpClient) -> list[Piece]:
    """Ask the monitor for the machine's memory, in ascending order.

    A guest that runs may change its map meanwhile; then it is read again. Raises ``IoError`` when it never holds still.
    """
    backends = _backends(client)
    for _ in range(_ATTEMPTS):
        ranges = parse_flat_view(client.human("info mtree -f"))
        hosts = [_host_address(client, item) for item in ranges]
        if ranges and None not in hosts:
            main = main_blocks(ranges, backends)
            return _joined(_piece(item, main, host or 0) for item, host in zip(ranges, hosts, strict=True))
    if not ranges:
        raise IoError("the machine has no memory: it was started with -M none, or nothing has been plugged in yet")
    raise IoError("QEMU's memory map keeps changing: pause the machine and try again")


def _backends(client: QmpClient) -> set[str]:
    """The ids of the memory backends, but for those whose memory an ivshmem device shares with others."""
    ids = {str(item["id"]) for item in client.execute("query-memdev") if "id" in item}
    for folder in ("/machine/peripheral", "/machine/peripheral-anon"):
        for item in client.execute("qom-list", path=folder):
            if "ivshmem" in item["type"]:
                ids.discard(_backend_of(client, f"{folder}/{item['name']}"))
    return ids


def _backend_of(client: QmpClient, device: str) -> str:
    try:
        return str(client.execute("qom-get", path=device, property="memdev")).rpartition("/")[2]
    except QmpCommandError:
        return ""


def _host_address(client: QmpClient, item: FlatRange) -> int | None:
    """Where in QEMU's process a range is; ``None`` if the map has changed since."""
    match = _HOST.search(client.human(f"gpa2hva {item.start:#x}"))
    return int(match[2], 16) if match and match[1] == item.block else None


def _piece(item: FlatRange, main: set[str], host: int) -> Piece:
    kind = MemoryKind.RAM if item.block in main else MemoryKind.DEVICE
    return Piece(item.start, item.size, MemoryKind.ROM if item.read_only else kind, item.block, host)


def _joined(pieces: Iterator[Piece]) -> list[Piece]:
    result: list[Piece] = []
    for piece in pieces:
        if result and piece.continues(result[-1]):
            last = result.pop()
            piece = replace(last, size=last.size + piece.size)
        result.append(piece)
    return result


def is_filled(client: QmpClient) -> bool:
    """Whether all of the guest's memory has arrived: during a post-copy migration parts of it follow when touched."""
    return "postcopy" not in str(client.execute("query-migrate").get("status", ""))


class HostMemory:
    """The sources behind the guest's memory: one for the process, one for each file that it maps shared.

    A file stays mapped until ``close()``, as readers may still hold regions of an older map.
    """

    def __init__(self, process: Process) -> None:
        """Raises ``PermissionDeniedError`` or ``VmGoneError``."""
        self._process = process
        self._memory = ProcessMemory(process)
        self._anonymous = self._memory.anonymous()
        self._files: dict[Vma, HostMapping | None] = {}
        self._skips = False

    def regions(self, pieces: Sequence[Piece], *, filled: bool) -> tuple[Region, ...]:
        """Regions for ``pieces``. Raises ``IoError`` if the process has no memory there (any more).

        ``filled`` is whether all memory that the guest has is in the process: untouched pages of it are then zero.
        """
        self._skips = filled
        vmas = self._process.mappings()
        return tuple(region for piece in pieces for region in self._regions(piece, vmas))

    def close(self) -> None:
        """Close all sources."""
        self._memory.close()
        for mapping in self._files.values():
            if mapping is not None:
                mapping.close()

    def _regions(self, piece: Piece, vmas: Sequence[Vma]) -> Iterator[Region]:
        done = 0
        for vma in vmas:
            begin, end = piece.host + done, min(piece.host + piece.size, vma.end)
            if vma.start <= begin < end:
                source, offset = self._source(vma, begin)
                yield Region(piece.start + done, end - begin, piece.kind, source, offset)
                done += end - begin
        if done != piece.size:
            raise IoError(f"QEMU's memory map changed while it was read, at {piece.start + done:#x}: try again")

    def _source(self, vma: Vma, host: int) -> tuple[Source, int]:
        mapping = self._mapping(vma) if vma.is_shared_file else None
        if mapping:
            return mapping, host - vma.start
        return (self._anonymous if self._skips and vma.is_anonymous else self._memory), host

    def _mapping(self, vma: Vma) -> HostMapping | None:
        if vma not in self._files:
            self._files[vma] = self._map(vma)
        return self._files[vma]

    def _map(self, vma: Vma) -> HostMapping | None:
        fd = open_backing(self._process, vma)
        if fd is None:
            _log.debug("%s cannot be opened: reading the memory of process %d", vma.path, self._process.pid)
            return None
        try:
            return HostMapping(fd, vma.offset, vma.end - vma.start, writable=True)
        except (OSError, ValueError) as err:
            _log.debug("%s cannot be mapped (%s): reading the memory of process %d", vma.path, err, self._process.pid)
            return None
