# SPDX-License-Identifier: Apache-2.0
"""The memory that a snapshot is copied into: one memfd, of which only what holds something takes memory."""

from __future__ import annotations

import bisect
import contextlib
import errno
import fcntl
import os
from collections.abc import Sequence

from libmicrovmi_py.declare import Any
from libmicrovmi_py.errors import InvalidArgumentError, IoError
from libmicrovmi_py.model import U64_MAX, MemoryRange
from libmicrovmi_py.transport.fds import OwnedFd, StandardStreamsHeld
from libmicrovmi_py.transport.native import give_way, native

CHUNK = 64 << 10

_SEALS = 0x0002 | 0x0004
"""F_SEAL_SHRINK, F_SEAL_GROW."""
_NO_WRITES = 0x0010
"""F_SEAL_FUTURE_WRITE."""
_LAST = 0x0001
"""F_SEAL_SEAL."""
_ADD_SEALS = 1033


_LARGEST = (1 << 63) - 1

_MEMORY = ("MemAvailable:", "SwapFree:")


def available() -> int:
    """How many bytes the system could still give, by its own estimate, where it tells one."""
    try:
        with StandardStreamsHeld(), open("/proc/meminfo", encoding="ascii") as file:
            rows = [line.split() for line in file]
    except OSError:
        return U64_MAX
    return sum(int(row[1]) << 10 for row in rows if row[0] in _MEMORY)


class Copy:
    """Room for ``ranges``, one behind the other: as ranges of a machine they ascend and are apart.

    A guest-physical address has the same place in a chunk of 64 KiB here as there. ``max_bytes`` is what the pages of
    the copy may take at any time, 0 for all of ``ranges``; it is never more than the system has. Several threads may
    write at once, as long as two are never at work on the same chunk. Nothing is written where no room was made: a
    system without memory is then an error.
    """

    def __init__(self, ranges: Sequence[MemoryRange], max_bytes: int = 0) -> None:
        """Raises ``IoError`` if the system has no descriptor, or not so much address space; ``InvalidArgumentError``
        for a negative ``max_bytes``, or without any range."""
        if max_bytes < 0 or not ranges:
            raise InvalidArgumentError(f"a copy of {len(ranges)} ranges, and at most {max_bytes} bytes")
        self.ranges: tuple[MemoryRange, ...] = tuple(ranges)
        self.max_bytes = max_bytes or sum(item.size + CHUNK for item in self.ranges)
        self._available = available()
        self._starts = [item.start for item in self.ranges]
        self._offsets, self.size = _places(self.ranges)
        if self.size > _LARGEST:
            raise IoError(f"no room for a snapshot of {self.size} bytes: no file is that long")
        try:
            with StandardStreamsHeld():
                self.file = OwnedFd(os.memfd_create("microvmi-snapshot", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
        except OSError as err:
            raise IoError(f"no file for a snapshot: {err.strerror}") from err
        self._data_bytes: int | None = None
        self.pointer = self._made()

    def _made(self) -> Any:
        ffi, lib = native()
        limit = min(self.max_bytes, self._available)
        made = ffi.gc(lib.mvi_copy_new(self.fd, self.size, limit), lib.mvi_copy_free)
        if made == ffi.NULL:
            raise IoError(f"no room for a snapshot of {self.size} bytes: {os.strerror(ffi.errno)}")
        return made

    @property
    def fd(self) -> int:
        """The number of the memfd, as long as this object lives."""
        return self.file.number

    @property
    def address(self) -> int:
        """Where the copy is mapped in this process, until :meth:`finish`. It is touched only where room was made."""
        return int(native().ffi.cast("uintptr_t", self.pointer.bytes))

    @property
    def pointer_address(self) -> int:
        """The ``struct mvi_copy`` as a number, for functions of C; this object is held meanwhile."""
        return int(native().ffi.cast("uintptr_t", self.pointer))

    @property
    def data_bytes(self) -> int:
        """How many bytes take memory now."""
        return int(self.pointer.taken) if self._data_bytes is None else self._data_bytes

    def offset_of(self, address: int) -> int:
        """Where a guest-physical address is in the copy. Raises ``IoError`` if it is in none of the ranges."""
        index = bisect.bisect_right(self._starts, address) - 1
        if index < 0 or address >= self.ranges[index].end:
            raise IoError(f"no memory at physical address {address:#x} was to be copied", address=address)
        return self._offsets[index] + address - self.ranges[index].start

    def clear(self, offset: int, size: int) -> None:
        """A range is zeros from now on."""
        native().lib.mvi_copy_clear(self.pointer, offset, size)

    def room(self, offset: int, size: int) -> None:
        """See to it that the pages of a range can be written. Raises as :meth:`check`."""
        self.check(native().lib.mvi_copy_room(self.pointer, offset, size))

    def store(self, offset: int, content: Any) -> None:
        """Put bytes where they belong; zeros take no memory where there was none. Raises as :meth:`check`."""
        ffi, lib = native()
        data = ffi.from_buffer("uint8_t[]", content)
        self.check(lib.mvi_copy_store(self.pointer, offset, data, len(data)))

    def check(self, failed: int) -> None:
        """Raise ``IoError`` for what a function of ``copy.h`` returned, unless that is 0."""
        if failed == errno.EDQUOT and self._available < self.max_bytes:
            raise IoError(
                f"the snapshot takes more than the {self._available} bytes of memory that the system has left"
            )
        if failed == errno.EDQUOT:
            raise IoError(f"the snapshot takes more than {self.max_bytes} bytes: allow it more by max_bytes")
        if failed:
            there = f"of which {self.data_bytes} bytes are there"
            raise IoError(f"no memory for the snapshot, {there}: {os.strerror(failed)}")

    def finish(self) -> None:
        """Nothing is written any more: pages of zeros are given back, and the file cannot be changed from now on."""
        ffi, lib = native()
        chunk = ffi.new("uint64_t *")
        while not lib.mvi_copy_trim(self.pointer, chunk):
            give_way()
        self._data_bytes = self.data_bytes
        ffi.release(self.pointer)  # the mapping that can be written
        for seals in (_SEALS, _NO_WRITES, _LAST):
            with contextlib.suppress(OSError):  # Linux before 5.1 has no seal against writes
                fcntl.fcntl(self.fd, _ADD_SEALS, seals)

    def drop(self) -> None:
        """Give all of it back: nobody uses this object any more. It may be called again."""
        if self._data_bytes is None:
            self._data_bytes = 0
            native().ffi.release(self.pointer)
        vars(self).pop("file", None)


def _places(ranges: Sequence[MemoryRange]) -> tuple[list[int], int]:
    """Where each range begins, and how long all are."""
    offsets, end = [], 0
    for item in ranges:
        offsets.append(end + item.start % CHUNK)
        end += -(-(item.start % CHUNK + item.size) // CHUNK) * CHUNK
    return offsets, end
