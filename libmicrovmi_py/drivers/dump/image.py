# SPDX-License-Identifier: Apache-2.0
"""The bytes of a dump file, by offset: no read goes beyond what the file has."""

from __future__ import annotations

import bisect
import errno
import os
import struct
from collections.abc import Iterator

from libmicrovmi_py.drivers.dump.layout import Extent, laid_out
from libmicrovmi_py.errors import DriverUnavailableError, IoError
from libmicrovmi_py.transport.mapping import HostMapping

MAX_PIECES = 1 << 20
"""So many extents of memory a dump may have; one with more is refused before they fill this process."""


class Image:
    """A dump file. Headers are read, not mapped: if the file is cut meanwhile, that is an error and no SIGBUS."""

    def __init__(self, path: str, mapping: HostMapping) -> None:
        self.path = path
        self.mapping = mapping
        self.size = mapping.size

    @classmethod
    def open(cls, path: str, *, mapped: bool = True) -> Image:
        """Open a file or block device. Raises ``PermissionDeniedError``, ``IoError`` for what is neither, or empty.

        ``mapped`` is whether memory that lies in it is mapped, or read by system calls.
        """
        return cls(path, HostMapping.of_file(path, mapped=mapped, image=True))

    @property
    def identity(self) -> str:
        """What no other file has, as long as nobody writes to this one."""
        status = os.fstat(self.mapping.file().number)
        return f"file {status.st_dev}:{status.st_ino} of {status.st_size} bytes and {status.st_mtime_ns}"

    def read(self, offset: int, size: int, what: str) -> bytes:
        """``size`` bytes from ``offset``, which are ``what``. Raises ``IoError`` unless the file has them all."""
        self.check(offset, size, what)
        return b"".join(self._read(begin, length, what) for begin, length in self.extents(offset, size))

    def _read(self, offset: int, size: int, what: str) -> bytes:
        fd = self.mapping.file()
        try:
            content = os.pread(fd.number, size, offset)
        except OSError as err:
            raise IoError(f"{self.path}: {what} cannot be read: {err.strerror}") from err
        if len(content) != size:
            raise IoError(f"{self.path} became shorter while it was open: {what} at {offset:#x} is gone")
        return content

    def check(self, offset: int, size: int, what: str) -> None:
        """Raise ``IoError`` unless the file has these bytes."""
        if offset < 0 or size < 0 or offset + size > self.size:
            place = f"{what} would lie at {offset:#x}, {size:#x} bytes, of a file of {self.size:#x}"
            raise self.damaged(f"{place}: {offset + size - self.size} bytes are missing")

    def extents(self, offset: int, size: int) -> Iterator[tuple[int, int]]:
        """Where in the file those bytes are: (offset, size), in order."""
        yield offset, size

    def next_data(self, offset: int) -> int:
        """The first byte from ``offset`` on that may be other than 0; the end of the file if there is none.

        A sparse file of 8 KiB can say that it has a bitmap of 128 GiB, which nobody should wait for.
        """
        try:
            return os.lseek(self.mapping.file().number, offset, os.SEEK_DATA)
        except OSError as err:
            return self.mapping.size if err.errno == errno.ENXIO else offset

    def damaged(self, what: str) -> IoError:
        """The error for a file that is cut short, or whose headers contradict what it holds."""
        return IoError(f"{self.path} is cut short or damaged: {what}; copy it again, or make the dump anew")

    def refused(self, what: str, way_out: str) -> DriverUnavailableError:
        """The error for a file that is not damaged, but of a kind that this version cannot read."""
        return DriverUnavailableError(f"{self.path} is {what}, which cannot be read: {way_out}")


class FlatImage(Image):
    """The file that a flattened one describes (``makedumpfile -F``, QEMU's kdump formats): records with their offsets.

    A page of header is followed by records: offset and size, big-endian, 8 bytes each, and the bytes. An offset of -1
    ends them; of two records for the same bytes the later one holds.
    """

    MAGIC = b"makedumpfile\0"
    _HEADER = 4096
    _MAX_RECORDS = 1 << 22

    def __init__(self, file: Image) -> None:
        super().__init__(file.path, file.mapping)
        kind, version = struct.unpack(">qq", file.read(16, 16, "the header of a flattened dump"))
        if (kind, version) != (1, 1):
            raise self.refused(f"a flattened dump of type {kind}, version {version}", "rearrange it: makedumpfile -R")
        self._records = laid_out(reversed(list(self._find_records(file))))
        if not self._records:
            raise self.damaged("there are no records in it")
        self._starts = [record.start for record in self._records]
        self.size = self._records[-1].end

    def _find_records(self, file: Image) -> Iterator[Extent]:
        position, count = self._HEADER, 0
        while True:
            offset, size = struct.unpack(">qq", file.read(position, 16, f"record {count}"))
            if (offset, size) == (-1, -1):
                return
            position += 16
            if offset < 0 or size <= 0 or size > file.size - position:
                raise self.damaged(f"record {count} at {position - 16:#x} has offset {offset:#x} and size {size:#x}")
            if count == self._MAX_RECORDS:
                raise self.refused(f"a flattened file of more than {count} records", "rearrange it: makedumpfile -R")
            yield Extent(offset, size, position)
            position += size
            count += 1

    def next_data(self, offset: int) -> int:
        """As :meth:`Image.next_data`; a hole within a record's bytes in the file counts as a hole."""
        index = bisect.bisect_right(self._starts, offset) - 1
        record = self._records[max(index, 0)]
        if not record.start <= offset < record.end:
            return offset
        return min(super().next_data(record.offset + offset - record.start) - record.offset + record.start, record.end)

    def extents(self, offset: int, size: int) -> Iterator[tuple[int, int]]:
        """Where in the file those bytes are. Raises ``IoError`` for bytes that no record has."""
        index = bisect.bisect_right(self._starts, offset) - 1
        while size > 0:
            record = self._records[index] if 0 <= index < len(self._records) else Extent(0, 0, 0)
            if not record.start <= offset < record.end:
                raise self.damaged(f"no record has the bytes at {offset:#x}")
            length = min(record.end - offset, size)
            yield record.offset + offset - record.start, length
            offset, size, index = offset + length, size - length, index + 1
