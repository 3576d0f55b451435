# SPDX-License-Identifier: Apache-2.0
"""QEMU's migration stream: what stands before the pages of RAM, and the code in C that reads those."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

from libmicrovmi_py.declare import TYPE_CHECKING, NamedTuple
from libmicrovmi_py.errors import IoError
from libmicrovmi_py.model import PAGE_SIZE
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.fds import OwnedFd, StandardStreamsHeld
from libmicrovmi_py.transport.native import native

if TYPE_CHECKING:
    from libmicrovmi_py.transport.copy import Copy

FILE = "microvmi-migration"
"""The name of the file in memory, which QEMU's descriptors show."""

MAGIC = b"QEVM\x00\x00\x00\x03"
_START, _SUBSECTION, _CONFIGURATION = 1, 5, 7
_SIZES = 0x04
"""The flag of a word of RAM that the list of blocks follows."""

_RAM = (b"ram", 0, 4)
"""Name, instance and version of the section of RAM; every QEMU that has background snapshots writes this one."""

_MOST_BLOCKS = 4096
_MOST_CAPABILITIES = 256
_LONGEST_TEXT = 4096
_LOOK = 0.001

_FAILURES = (
    "",
    "it ends in the middle",
    "it has a section that is not known here",
    "it has a page of a block that it did not announce",
    "it has a page outside of its block",
    "it has a page in a form that is not known here",
    "it has a page twice",
    "it does not have all pages",
    "it is longer than can be",
    "the file cannot be read",
    "it was stopped",
)
"""What ``enum mvi_migration_failure`` means, by its numbers without their sign."""


class StreamError(IoError):
    """A stream that is not what it should be: nothing is wrong with the copy."""


class Head(NamedTuple):
    """The number of RAM's section, its blocks: names and sizes in bytes, and where in the file the pages begin."""

    section: int
    blocks: list[tuple[str, int]]
    end: int


class Part(NamedTuple):
    """A piece of a block, and where in the copy it belongs."""

    block: str
    offset: int
    size: int
    place: int


class Progress(NamedTuple):
    """How far the pages are: bytes of the stream, bytes of the copy, and whether all is over."""

    received: int
    copied: int
    over: bool


class Stream:
    """A stream: a file in memory that QEMU writes, so that neither it nor the guest ever waits for us.

    If this process ends, QEMU goes on to the end of the stream, and then closes the file, which nobody has any more.
    A lock on it, which ends with this object or with this process, shows whoever finds it in QEMU that somebody lives.
    """

    def __init__(self) -> None:
        """Raises ``IoError`` without a descriptor left."""
        try:
            with StandardStreamsHeld():
                self._file = OwnedFd(os.memfd_create(FILE))
            fcntl.flock(self._file.number, fcntl.LOCK_EX)
            self.entrance = OwnedFd.open(f"/proc/self/fd/{self._file.number}", os.O_WRONLY)
        except OSError as err:
            raise IoError(f"no file for the migration stream: {err.strerror}") from err
        self._pages: Pages | None = None

    def head(self, seconds: float, look: Callable[[], None]) -> Head:
        """Read all that stands before the first page.

        ``look`` is called while nothing comes, and ends it by raising. Raises ``StreamError`` for what is not
        understood, and if not all of it is there in time.
        """
        return _Reader(self._file, Deadline(seconds), look).head()

    def pages(self, head: Head, parts: Sequence[Part], copy: Copy) -> Pages:
        """Start to read the pages into an empty copy. Raises ``IoError`` if there is no memory for that."""
        self._pages = Pages(self._file, head, parts, copy)
        self._pages.start()  # when there is what stops it
        return self._pages

    def discard(self) -> int:
        """Read nothing any more, and give back the memory of what QEMU has written, which goes on. How far it was."""
        if self._pages is not None:
            self._pages.stop()
        size = os.fstat(self._file.number).st_size
        os.ftruncate(self._file.number, 0)
        return size


class _Reader:
    """Numbers and texts of the stream, one after the other, and no byte more than is asked for."""

    def __init__(self, source: OwnedFd, deadline: Deadline, look: Callable[[], None]) -> None:
        self._source = source
        self._place = 0
        self._deadline = deadline
        self._look = look

    def head(self) -> Head:
        if self._take(len(MAGIC)) != MAGIC:
            raise StreamError("what QEMU sends is no migration stream")
        kind = self._number(1)
        if kind == _CONFIGURATION:
            self._text(4)  # the machine's type
            kind = self._number(1)
            while kind == _SUBSECTION:
                self._skip_subsection()
                kind = self._number(1)
        section, name = self._number(4), self._text(1)
        if kind != _START or (name, self._number(4), self._number(4)) != _RAM:
            raise StreamError(f"the migration stream begins with a section that is not RAM's ({name!r})")
        blocks = self._blocks()
        return Head(section, blocks, self._place)

    def _skip_subsection(self) -> None:
        """What the configuration tells besides. Raises for what is not known, and for pages of another size."""
        name, _ = self._text(1), self._number(4)
        if name == b"configuration/target-page-bits":
            if 1 << min(self._number(4), 64) != PAGE_SIZE:
                raise StreamError(f"the machine's pages are not of {PAGE_SIZE} bytes")
        elif name == b"configuration/capabilities":
            for _ in range(self._count(4, _MOST_CAPABILITIES)):
                self._text(1)
        else:
            raise StreamError(f"the migration stream has a configuration that is not known here ({name!r})")

    def _blocks(self) -> list[tuple[str, int]]:
        """The list of blocks, of which the first word tells the size of all, and its end."""
        word = self._number(8)
        total = word & -PAGE_SIZE
        blocks: list[tuple[str, int]] = []
        if word & (PAGE_SIZE - 1) != _SIZES:
            raise StreamError("the migration stream has pages before it tells of what")
        while total > 0:
            name, size = self._text(1), self._number(8)
            if not size or size > total or size % PAGE_SIZE or len(blocks) == _MOST_BLOCKS:
                raise StreamError(f"the migration stream has a block {name!r} of {size} bytes: that cannot be")
            blocks.append((os.fsdecode(name), size))
            total -= size
        if len(dict(blocks)) < len(blocks) or any("\0" in name for name, _ in blocks):
            raise StreamError("the migration stream has two blocks of one name")
        return blocks

    def _text(self, size: int) -> bytes:
        """A text behind its length, a number of so many bytes."""
        return self._take(self._count(size, _LONGEST_TEXT))

    def _count(self, size: int, most: int) -> int:
        if (count := self._number(size)) > most:
            raise StreamError(f"the migration stream tells a length of {count}: that cannot be")
        return count

    def _number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "big")

    def _take(self, size: int) -> bytes:
        while len(data := os.pread(self._source.number, size, self._place)) < size:
            self._look()
            if self._deadline.expired:
                raise StreamError(f"QEMU did not begin within {self._deadline.seconds:g} s")
            time.sleep(_LOOK)
        self._place += size
        return data


class Pages:
    """The pages of RAM, which a thread of C's reads into the copy, from :meth:`start` until :meth:`stop`."""

    def __init__(self, source: OwnedFd, head: Head, parts: Sequence[Part], copy: Copy) -> None:
        ffi, lib = native()
        blocks = ffi.new("struct mvi_ram_block[]", len(head.blocks))
        rows: list[tuple[int, int, int]] = []
        for block, (name, size) in zip(blocks, head.blocks, strict=True):
            own = sorted((part.offset, part.size, part.place) for part in parts if part.block == name)
            block.name, block.size, block.first, block.count = os.fsencode(name), size, len(rows), len(own)
            rows += own
        given = blocks, len(blocks), ffi.new("struct mvi_ram_part[]", rows), len(rows)
        self._source = source
        self._copy = copy
        made = lib.mvi_migration_new(source.number, head.end, head.section, *given, copy.pointer)
        if made == ffi.NULL:
            raise _unreadable(ffi.errno)
        self._thread = ffi.gc(made, lib.mvi_migration_free)
        self._progress = ffi.new("struct mvi_migration_progress *")

    def start(self) -> None:
        """Begin to read, once."""
        if failed := native().lib.mvi_migration_start(self._thread):
            raise _unreadable(failed)

    def wait(self, seconds: float) -> Progress:
        """Wait until it is over, or for so long. Raises ``StreamError``, and what the copy raises."""
        native().lib.mvi_migration_wait(self._thread, int(seconds * 1000), self._progress)
        told = self._progress
        if told.failed > 0:
            self._copy.check(told.failed)
        if told.failed < 0:
            raise StreamError(f"QEMU's migration stream: {_FAILURES[-told.failed]}")
        return Progress(told.received, told.copied, told.over)

    def rest(self) -> bytes:
        """What stands behind the pages, once it is over: the devices' state, as if it were a stream of its own."""
        ffi, lib = native()
        size = ffi.new("size_t *")
        start = lib.mvi_migration_rest(self._thread, size)
        return MAGIC + bytes(ffi.buffer(start, size[0]))

    def stop(self) -> None:
        """No byte is read, and nothing is written into the copy any more."""
        native().lib.mvi_migration_stop(self._thread)

    def end(self) -> None:
        """QEMU has written all of it."""
        native().lib.mvi_migration_end(self._thread)


def _unreadable(number: int) -> IoError:
    return IoError(f"the migration stream cannot be read: {os.strerror(number)}")


class Mended(NamedTuple):
    """Pieces of the copy that are the same memory: where the second is, where the first is, and how long they are."""

    place: int
    origin: int
    size: int


def apart(parts: Sequence[Part]) -> tuple[list[Part], list[Mended]]:
    """Parts none of which overlap in their block; what the machine has at several addresses is to be mended.

    Memory is at two addresses where a part of it is shown a second time, as firmware is below 1 MiB.
    """
    alone: list[Part] = []
    mended: list[Mended] = []
    for block in dict.fromkeys(part.block for part in parts):
        own = [part for part in parts if part.block == block]
        edges = sorted({edge for part in own for edge in (part.offset, part.offset + part.size)})
        for start, end in pairwise(edges):
            here = [part for part in own if part.offset <= start and end <= part.offset + part.size]
            places = [part.place + start - part.offset for part in here]
            if places:
                alone.append(Part(block, start, end - start, places[0]))
                mended += [Mended(place, places[0], end - start) for place in places[1:]]
    return alone, mended
