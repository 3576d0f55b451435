# SPDX-License-Identifier: Apache-2.0
"""A machine that QEMU saved into a disk of its own (``savevm``, virt-manager): an internal snapshot of qcow2.

QEMU's stream lies behind the end of the disk, in clusters that the snapshot's own two levels of tables name.
https://www.qemu.org/docs/master/interop/qcow2.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from libmicrovmi_py.declare import TYPE_CHECKING, NamedTuple
from libmicrovmi_py.drivers.dump.image import MAX_PIECES, Image
from libmicrovmi_py.drivers.dump.pages import words
from libmicrovmi_py.drivers.dump.probing import Probe, Sure
from libmicrovmi_py.drivers.dump.views import Part, View, Zeros
from libmicrovmi_py.errors import InvalidArgumentError
from libmicrovmi_py.model import PHYSICAL_BITS

if TYPE_CHECKING:
    from array import array

BEGINS = (b"QFI\xfb",)

_WAY_OUT = "run the machine and make a dump of it"
_HEADER = struct.Struct(">4xI12xIQI24xIQ")
"""Version, bits of a cluster, size of the disk, encryption, number and place of snapshots."""
_FEATURES = 72
_CORRUPT, _KNOWN = 1 << 1, 0x1F
_EXTENDED = 1 << 4
_ENTRY = struct.Struct(">QIHHII8xII")
_MOST_SNAPSHOTS, _MOST_EXTRA = 1 << 16, 1 << 10
_OFFSET, _COMPRESSED, _ALL_ZEROS = 0x00FFFFFFFFFFFE00, 1 << 62, 1
_SUBCLUSTERS = 32
_AT_ONCE = 64 << 10
_MOST_ENTRIES = 1 << 22
"""Of the first table: QEMU allows no more."""
_NAMED = 10
"""So many snapshots are named in a message."""


class _Snapshot(NamedTuple):
    """What the table says of one; ``l1`` is where its first table is, of so many entries; sizes in bytes."""

    number: str
    name: str
    taken: tuple[int, int]
    state: int
    disk: int
    l1: int
    entries: int

    def __str__(self) -> str:
        return f"{self.number[:20]!r} ({self.name[:80]!r})"


class _Disk(NamedTuple):
    bits: int
    size: int
    features: int
    snapshots: int
    place: int


def probe(image: Image) -> Probe:
    """By the magic, and whether there are snapshots."""
    what = _refused(image)
    if what:
        return Probe(Sure.CERTAIN, what, _WAY_OUT)
    return Probe(Sure.CERTAIN, "a qcow2 image of a disk with snapshots")


def _refused(image: Image) -> str:
    """What it is that cannot be read; nothing if it can."""
    if len(image.start) < _HEADER.size:
        return "the beginning of a qcow image of a disk"
    version, bits, _, encryption, snapshots, _ = _HEADER.unpack_from(image.start)
    if version not in (2, 3) or not 9 <= bits <= 21:
        return f"a qcow image of a disk, version {version}"
    if _disk(image).features & ~_KNOWN:
        return f"a qcow2 image of a disk with unknown features {_disk(image).features:#x}"
    if not snapshots:
        return "a qcow2 image of a disk, without a saved machine in it"
    return "an encrypted qcow2 image of a disk" if encryption else ""


def _disk(image: Image) -> _Disk:
    version, bits, size, _, snapshots, place = _HEADER.unpack_from(image.start)
    features = int.from_bytes(image.start[_FEATURES : _FEATURES + 8], "big") if version == 3 else 0
    return _Disk(bits, size, features, snapshots, place)


def unwrap(image: Image) -> Image:
    """The stream of the snapshot that is asked for, or of the latest one."""
    disk = _disk(image)
    if disk.features & _CORRUPT:
        image.amiss("QEMU has marked it as corrupt")
    snapshot = _chosen(image, list(_snapshots(image, disk)))
    return _Stream(image.path, _parts(image, disk, snapshot))


class _Stream(View):
    def as_raw(self) -> None:
        """There is nothing but QEMU's stream in such a place."""
        raise self.refused("a snapshot of a disk in an unknown form", _WAY_OUT)


def _snapshots(image: Image, disk: _Disk) -> Iterator[_Snapshot]:
    position = disk.place
    if disk.snapshots > _MOST_SNAPSHOTS:
        raise image.damaged(f"it has {disk.snapshots} snapshots")
    for count in range(disk.snapshots):
        what = f"snapshot {count}"
        fields = _ENTRY.unpack(image.read(position, _ENTRY.size, what))
        l1, entries, number_size, name_size, second, nanosecond, small, more = fields
        if more > _MOST_EXTRA:
            raise image.damaged(f"{what} has {more} bytes of its own")
        rest = image.read(position + _ENTRY.size, more + number_size + name_size, what)
        state = int.from_bytes(rest[:8], "big") if more >= 8 else small
        size = int.from_bytes(rest[8:16], "big") if more >= 16 else disk.size
        number, name = (
            item.decode("utf-8", "replace") for item in (rest[more : more + number_size], rest[more + number_size :])
        )
        yield _Snapshot(number, name, (second, nanosecond), state, size, l1, entries)
        position = position + _ENTRY.size + len(rest) + 7 & -8


def _chosen(image: Image, snapshots: Sequence[_Snapshot]) -> _Snapshot:
    """The one that ``snapshot=`` names, by its name or its number; else the latest. All are told of."""
    machines = [item for item in snapshots if item.state]
    if not machines:
        what = "a qcow2 image of a disk whose snapshots have no machine (which QEMU saves with the first disk)"
        raise image.refused(what, _WAY_OUT)
    told = ", ".join(map(str, machines[-_NAMED:]))
    told = f"{image.path} has {len(machines)} saved machines, {told}" if len(machines) > 1 else ""
    asked = image.opening.options.snapshot
    if asked is None:
        latest = max(machines, key=lambda item: item.taken)
        if told:
            image.opening.say(f"{told}: the latest is opened, {latest}; snapshot=NAME opens another")
        return latest
    found = [item for item in machines if asked == item.name] or [item for item in machines if asked == item.number]
    if not found:
        raise InvalidArgumentError(f"snapshot={asked}: {told or f'{image.path} has a saved machine {machines[0]}'}")
    return found[-1]


class _Tables:
    """The tables of a snapshot, from where the machine's state begins."""

    def __init__(self, image: Image, disk: _Disk, snapshot: _Snapshot) -> None:
        self._image, self._snapshot = image, snapshot
        self.wide = 2 if disk.features & _EXTENDED else 1
        self.cluster = 1 << disk.bits
        self._count = self.cluster // 8 // self.wide
        covered = self.cluster * self._count
        self.first = -(-snapshot.disk // covered)
        self.end = self.first + -(-snapshot.state // covered)
        self._seen: set[int] = set()
        if not self.end <= snapshot.entries <= _MOST_ENTRIES:
            raise image.damaged(f"snapshot {snapshot} has tables of {snapshot.entries} entries, not {self.end}")

    def pieces(self) -> Iterator[tuple[int, int]]:
        """(size, offset in the file) of what follows each other in the state; offset 0: zeros."""
        left, block = self._snapshot.state, self._count * self.cluster
        begin, end = (self._snapshot.l1 + 8 * index for index in (self.first, self.end))
        for place in range(begin, end, _AT_ONCE):
            size = min(_AT_ONCE, end - place)
            entries = _numbers(self._image.read(place, size, "a table of a snapshot"))
            if self._image.next_data(place) >= place + size:
                yield min(left, len(entries) * block), 0
                left -= len(entries) * block
                continue
            for entry in entries:
                yield from self._table(entry & _OFFSET, min(left, block))
                left -= block

    def _table(self, offset: int, size: int) -> Iterator[tuple[int, int]]:
        """Of a table of the second level."""
        if offset in self._seen:
            raise self._image.damaged(f"the table at {offset:#x} is in use twice")
        if not offset or self._image.next_data(offset) >= offset + self.cluster:
            yield size, 0
            return
        self._seen.add(offset)
        entries = _numbers(self._image.read(offset, self.cluster, "a table of a snapshot"))
        for index in range(0, -(-size // self.cluster) * self.wide, self.wide):
            entry = entries[index]
            if entry & _COMPRESSED:
                raise self._image.refused("a qcow2 image with a saved machine in packed clusters", _WAY_OUT)
            if self.wide == 2:
                yield from self._subclusters(entry & _OFFSET, entries[index + 1])
            else:
                yield self.cluster, 0 if entry & _ALL_ZEROS else entry & _OFFSET

    def _subclusters(self, offset: int, there: int) -> Iterator[tuple[int, int]]:
        """Each bit says whether a part of the cluster is there."""
        size = self.cluster // _SUBCLUSTERS
        for bit in range(_SUBCLUSTERS):
            yield size, offset + bit * size if there >> bit & 1 and offset else 0


def _numbers(content: bytes) -> array[int]:
    """Big-endian ones of 8 bytes."""
    numbers = words("Q", content)
    numbers.byteswap()
    return numbers


def _parts(image: Image, disk: _Disk, snapshot: _Snapshot) -> list[Part]:
    """The state as parts of the file; what follows each other there is one."""
    if snapshot.state > 1 << PHYSICAL_BITS or snapshot.disk > 1 << 63:
        raise image.damaged(f"snapshot {snapshot} would have {snapshot.state:#x} bytes")
    runs: list[tuple[int, int, int]] = []
    begin = 0
    for piece, offset in _Tables(image, disk, snapshot).pieces():
        size = min(piece, snapshot.state - begin)
        if size <= 0:
            break
        if offset:
            image.check(offset, size, "a cluster of the machine's state")
        if runs and (offset == runs[-1][2] + runs[-1][1] if offset and runs[-1][2] else offset == runs[-1][2]):
            start, length, place = runs.pop()
            runs.append((start, length + size, place))
        else:
            runs.append((begin, size, offset))
        if len(runs) > MAX_PIECES:
            raise image.refused(f"a snapshot in more than {MAX_PIECES} pieces", _WAY_OUT)
        begin += size
    zeros = Zeros(image, max((size for _, size, offset in runs if not offset), default=0))
    return [Part(start, size, image if offset else zeros, offset) for start, size, offset in runs]
