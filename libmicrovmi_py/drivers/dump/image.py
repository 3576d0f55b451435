# SPDX-License-Identifier: Apache-2.0
"""The bytes of a dump, by offset: no read goes beyond what is there. ``File`` is a file, others are made of images."""

from __future__ import annotations

import abc
import errno
import itertools
import os
from collections.abc import Iterator

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.dump.opening import Opening
from libmicrovmi_py.errors import DriverUnavailableError, IoError
from libmicrovmi_py.transport.fds import OwnedFd, StandardStreamsHeld
from libmicrovmi_py.transport.mapping import HostMapping

MAX_PIECES = 1 << 20
"""So many extents of memory a dump may have; one with more is refused before they fill this process."""

_START = 4096

_MOST_LOOKED_AT = 4096
"""So many files of a folder are looked at for those that belong to a dump."""


class Place(NamedTuple):
    """``size`` bytes of an open file from ``offset`` on."""

    mapping: HostMapping
    offset: int
    size: int


class Image(abc.ABC):
    """Bytes that formats read. Headers are read, not mapped: if a file is cut meanwhile, that is an error, no SIGBUS.

    ``path`` is the file as errors name it, ``opening`` how it is opened. ``flat`` is whether the bytes lie in files as
    they are, so that :meth:`places` tells where, and memory can be mapped.
    """

    flat = True

    def __init__(self, path: str, size: int, opening: Opening) -> None:
        self.path = path
        self.size = size
        self.opening = opening
        self._first: bytes | None = None

    @abc.abstractmethod
    def _read(self, offset: int, size: int, what: str) -> bytes:
        """As :meth:`read`; the bytes are there."""

    @abc.abstractmethod
    def places(self, offset: int, size: int) -> Iterator[Place]:
        """Where in files those bytes are, in order; only of a ``flat`` image. Raises ``IoError`` for those nowhere."""

    def pieces(self) -> Iterator[tuple[int, Place]]:
        """All of a ``flat`` image that is there, in order: where in the image, and where that is in files."""
        start = 0
        for place in self.places(0, self.size):
            yield start, place
            start += place.size

    @abc.abstractmethod
    def next_data(self, offset: int) -> int:
        """The first byte from ``offset`` on that may be other than 0; the end of the image if there is none.

        A sparse file of 8 KiB can say that it has a bitmap of 128 GiB, which nobody should wait for.
        """

    @property
    def start(self) -> bytes:
        """The first bytes, as many as there are up to 4096: what a ``probe`` looks at."""
        if self._first is None:
            self._first = self.read(0, min(_START, self.size), "its start")
        return self._first

    def read(self, offset: int, size: int, what: str) -> bytes:
        """``size`` bytes from ``offset``, which are ``what``. Raises ``IoError`` unless the image has them all."""
        self.check(offset, size, what)
        if self._first is not None and offset + size <= len(self._first):
            return self._first[offset : offset + size]
        return self._read(offset, size, what)

    def check(self, offset: int, size: int, what: str) -> None:
        """Raise ``IoError`` unless the image has these bytes."""
        if not self.has(offset, size):
            raise self.damaged(self._beyond(offset, size, what))

    def has(self, offset: int, size: int) -> bool:
        """Whether the image has these bytes."""
        return offset >= 0 and size >= 0 and offset + size <= self.size

    def clipped(self, offset: int, size: int, what: str) -> int:
        """How many of these bytes of memory are there: all, and with ``partial`` maybe fewer, which is written down.

        Raises ``IoError`` without ``partial`` unless the image has them all.
        """
        if self.has(offset, size):
            return size
        self.amiss(self._beyond(offset, size, what))
        return max(min(self.size - offset, size), 0) if offset >= 0 else 0

    def amiss(self, what: str) -> None:
        """Something of the dump is not there, and the rest can be read: an error that says so, but with ``partial``."""
        if not self.opening.options.partial:
            raise self.damaged(what, "open what is there with partial=on")
        self.opening.lacks(what)

    def _beyond(self, offset: int, size: int, what: str) -> str:
        place = f"{what} would lie at {offset:#x}, {size:#x} bytes, of a file of {self.size:#x}"
        return f"{place}: {offset + size - self.size} bytes are missing"

    def as_raw(self) -> None:
        """Called when no format knows it. Raises ``DriverUnavailableError`` for what cannot be raw memory."""
        return

    def damaged(self, what: str, way_out: str = "") -> IoError:
        """The error for a file that is cut short, or whose headers contradict what it holds."""
        more = f", or {way_out}" if way_out else ""
        return IoError(f"{self.path} is cut short or damaged: {what}; copy it again, or make the dump anew{more}")

    def refused(self, what: str, way_out: str) -> DriverUnavailableError:
        """The error for a file that is not damaged, but of a kind that this version cannot read."""
        return DriverUnavailableError(f"{self.path} is {what}, which cannot be read: {way_out}")

    def beside(self, name: str) -> File | None:
        """The file of that name in this one's folder, if there is one; it becomes part of the dump.

        Raises as :meth:`File.open` for one that is there and cannot be read.
        """
        path = os.path.join(os.path.dirname(self.path), name)
        if os.sep in name or name in ("", ".", "..") or not os.path.exists(path):
            return None
        return File.open(path, self.opening)

    def alike(self, size: int) -> list[File]:
        """The other files of this one's folder that begin with the same ``size`` bytes, by their names.

        They become part of the dump. Not more than 4096 files are looked at; raises as :meth:`File.open`.
        """
        folder, own = os.path.dirname(self.path), os.path.basename(self.path)
        with StandardStreamsHeld(), os.scandir(folder or ".") as entries:
            seen = itertools.islice(entries, _MOST_LOOKED_AT)
            names = sorted(entry.name for entry in seen if entry.name != own and entry.is_file())
        begin = self.read(0, size, "its start")
        paths = [os.path.join(folder, name) for name in names]
        return [File.open(path, self.opening) for path in paths if _begins(path, begin)]

    @property
    def stem(self) -> str:
        """The file's name without its folder and without its ending, for :meth:`beside`."""
        return os.path.splitext(os.path.basename(self.path))[0]


def _begins(path: str, content: bytes) -> bool:
    """Whether a file begins like that; one that cannot be read does not."""
    try:
        fd = OwnedFd.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        return os.pread(fd.number, len(content), 0) == content
    except OSError:
        return False


class File(Image):
    """A file or a block device; ``made`` is one that we have written ourselves, for what was unpacked."""

    def __init__(self, path: str, mapping: HostMapping, opening: Opening, *, made: bool = False) -> None:
        super().__init__(path, mapping.size, opening)
        self.mapping = mapping
        self.made = made
        opening.files.append(self)

    @classmethod
    def open(cls, path: str, opening: Opening | None = None) -> File:
        """Raises ``PermissionDeniedError``, ``IoError`` for what is no file or block device, or empty."""
        opening = opening if opening is not None else Opening()
        return cls(path, HostMapping.of_file(path, mapped=opening.options.mapped, image=True), opening)

    @property
    def identity(self) -> str:
        """What no other file has, as long as nobody writes to this one."""
        status = os.fstat(self.mapping.file().number)
        return f"file {status.st_dev}:{status.st_ino} of {status.st_size} bytes and {status.st_mtime_ns}"

    def _read(self, offset: int, size: int, what: str) -> bytes:
        fd = self.mapping.file()
        try:
            content = os.pread(fd.number, size, offset)
        except OSError as err:
            raise IoError(f"{self.path}: {what} cannot be read: {err.strerror}") from err
        if len(content) != size:
            raise IoError(f"{self.path} became shorter while it was open: {what} at {offset:#x} is gone")
        return content

    def places(self, offset: int, size: int) -> Iterator[Place]:
        """Right there."""
        yield Place(self.mapping, offset, size)

    def next_data(self, offset: int) -> int:
        """As the file system knows it."""
        try:
            return os.lseek(self.mapping.file().number, offset, os.SEEK_DATA)
        except OSError as err:
            return self.mapping.size if err.errno == errno.ENXIO else offset
