# SPDX-License-Identifier: Apache-2.0
"""The guest's memory where its process may not be looked into: in the files that QEMU says it has its RAM in.

That takes the right to open those files and no other. What a process says is not taken on trust: a file counts if it
belongs to the process's own user, who could therefore open it as well, and if it holds what the monitor reads.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence

from libmicrovmi_py.declare import dataclass
from libmicrovmi_py.drivers.base import Region, Source
from libmicrovmi_py.drivers.qemu.flatview import Extent
from libmicrovmi_py.errors import IoError, PermissionDeniedError
from libmicrovmi_py.model import PAGE_SIZE, MemoryKind
from libmicrovmi_py.transport.fds import OwnedFd
from libmicrovmi_py.transport.life import life_of
from libmicrovmi_py.transport.mapping import HostMapping
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.procmem import DeniedMemory
from libmicrovmi_py.transport.qmp import QmpClient, QmpCommandError
from libmicrovmi_py.transport.shape import flag, integer, text

_LONGEST = 1 << 52
_SAMPLES = 128
_SAMPLE = 64
"""Bytes of each; in so many places a file is compared with what the monitor reads."""

_BYTE = re.compile(r" 0x([0-9a-f]{2})(?![0-9a-f])")


@dataclass(frozen=True, slots=True)
class _Backend:
    """A file that a RAM block lies in, as QEMU tells it."""

    path: str
    offset: int
    size: int


class SharedFiles:
    """The sources behind the guest's memory: one for each file, and one for what is in no file and cannot be read."""

    has_unsteady_files = has_moved = False  # the system does not tell whether they are still those

    def __init__(self, process: Process, refused: PermissionDeniedError, *, mapped: bool = True) -> None:
        """``refused`` is the error that kept us out of the process. It is raised if main memory is not all in files.

        ``mapped`` is whether files are mapped, or else read.
        """
        self._process = process
        self._mapped = mapped
        self._life = life_of(process)
        self._refused = refused
        self._denied = DeniedMemory(process)
        self._files: dict[str, HostMapping] = {}

    def ask(self, client: QmpClient, extents: Sequence[Extent]) -> None:
        """Open the files behind ``extents``. Raises what kept the driver out of the process, or ``IoError``."""
        blocks = dict.fromkeys(extent.block for extent in extents if extent.kind is MemoryKind.RAM)
        for block in [block for block in blocks if block not in self._files]:
            backend = _backend(client, block)
            if backend is None:
                raise self._refused
            mapping, fd = self._map(backend)
            held = (extent for extent in extents if extent.block == block)
            if not all(_is_in(fd, backend, extent, client) for extent in held):
                raise IoError(f"{backend.path} is not the file that QEMU has its memory in: it took that file's name")
            self._files[block] = mapping

    def regions(self, extents: Sequence[Extent], *, filled: bool) -> tuple[Region, ...]:
        """Regions for ``extents``, whose files were asked for.

        Raises ``IoError`` unless all memory that the guest has is there: a page of a file that is touched before it
        arrived could not arrive any more.
        """
        if not filled:
            raise IoError(
                f"memory of the machine is still to arrive by its migration: wait for it; or: {self._refused}"
            )
        return tuple(self._region(extent) for extent in extents)

    def close(self) -> None:
        """Close all files."""
        for mapping in self._files.values():
            mapping.close()

    def _region(self, extent: Extent) -> Region:
        source: Source = self._denied
        offset, mapping = extent.host, self._files.get(extent.block)
        if mapping is not None:
            integer(extent.offset + extent.size, f"the end of RAM block {extent.block}", 0, mapping.size)
            source, offset = mapping, extent.offset
        return Region(extent.start, extent.size, extent.kind, source, offset, extent.unsteady)

    def _map(self, backend: _Backend) -> tuple[HostMapping, OwnedFd]:
        """Map what the process's own user could open, too; it says itself which file it is."""
        fd = _opened(backend.path, self._process.user)
        if fd is None:
            raise self._refused
        try:
            writable = bool(os.fstat(fd.number).st_mode & stat.S_IWUSR)
            size = backend.size
            return HostMapping(fd, backend.offset, size, writable=writable, mapped=self._mapped, life=self._life), fd
        except (OSError, ValueError) as err:
            raise IoError(f"{backend.path}: QEMU's memory cannot be mapped: {err}") from err


def _opened(path: str, user: int) -> OwnedFd | None:
    """A regular file of a user's, for reading; ``None`` if it is another's or may not be opened."""
    try:
        found = OwnedFd.open(path, os.O_PATH)
        status = os.fstat(found.number)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != user or not status.st_mode & stat.S_IRUSR:
            return None
        return OwnedFd.open(f"/proc/self/fd/{found.number}", os.O_RDONLY | os.O_NOCTTY)
    except (OSError, ValueError):
        return None


def _backend(client: QmpClient, block: str) -> _Backend | None:
    """The file behind a RAM block; ``None`` if it is in no file that others can open."""
    path = f"/objects/{block.removeprefix('/objects/')}"
    try:
        if not flag(client.execute("qom-get", path=path, property="share"), "whether memory is shared"):
            return None
        name = text(client.execute("qom-get", path=path, property="mem-path"), "the path of a memory file")
        size = client.execute("qom-get", path=path, property="size")
    except QmpCommandError:
        return None
    what = f"the size of {name}"
    return _Backend(name, _offset(client, path), integer(size, what, 1, _LONGEST)) if os.path.isabs(name) else None


def _offset(client: QmpClient, path: str) -> int:
    """Where in its file a memory backend begins; QEMU has told it since 8.1."""
    try:
        told = client.execute("qom-get", path=path, property="offset")
    except QmpCommandError:
        return 0
    return integer(told, "the offset of a memory file", 0, _LONGEST)


def _is_in(fd: OwnedFd, backend: _Backend, extent: Extent, client: QmpClient) -> bool:
    """Whether the file holds what the guest has there. Places that change while they are compared do not count."""
    for address, offset in _places(fd, backend, extent):
        before = os.pread(fd.number, _SAMPLE, offset)
        shown = client.human(f"xp /{_SAMPLE}xb {address:#x}")
        content = bytes(int(digits, 16) for digits in _BYTE.findall(shown))
        if content != before and before == os.pread(fd.number, _SAMPLE, offset):
            return False
    return True


def _places(fd: OwnedFd, backend: _Backend, extent: Extent) -> Iterator[tuple[int, int]]:
    """Places to compare (guest address, offset in the file): all over the extent, outside of holes if it has data."""
    first = backend.offset + extent.offset
    step = max(PAGE_SIZE, extent.size // _SAMPLES // PAGE_SIZE * PAGE_SIZE)
    for distance in range(0, extent.size - _SAMPLE + 1, step):
        yield extent.start + distance, first + distance
        try:
            data = os.lseek(fd.number, first + distance, os.SEEK_DATA)
        except OSError:  # none up to the end of the file
            continue
        if data + _SAMPLE <= min(first + distance + step, first + extent.size):
            yield extent.start + data - first, data
