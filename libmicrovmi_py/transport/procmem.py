# SPDX-License-Identifier: Apache-2.0
"""The memory of another process, through ``/proc/PID/mem``."""

from __future__ import annotations

import mmap
import os
import threading

from libmicrovmi_py.declare import Any, dataclass, replace
from libmicrovmi_py.errors import IoError, ReadOnlyError, VmGoneError, was_closed
from libmicrovmi_py.model import PAGE_SIZE
from libmicrovmi_py.transport.fds import OwnedFd
from libmicrovmi_py.transport.life import Life, life_of
from libmicrovmi_py.transport.native import native
from libmicrovmi_py.transport.processes import Process, denied, failed
from libmicrovmi_py.transport.reach import Reach


class ProcessMemory:
    """Bytes at the virtual addresses of a process: an offset in this source is an address there.

    Opened for reading; for writing at the first write. ``pid`` is the process.
    """

    def __init__(self, process: Process, life: Life | None = None) -> None:
        """``life`` is the process's, where somebody has it. Raises ``PermissionDeniedError`` or ``VmGoneError``."""
        self._process = process
        self._lock = threading.Lock()
        self._reader: OwnedFd | None = self._open(os.O_RDONLY)
        self._writer: OwnedFd | None = None
        self._pidfd = (life or life_of(process)).pidfd

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def reach(self) -> Reach:
        """The process and its memory. Raises ``InvalidContextError`` after ``close()``."""
        with self._lock:
            if self._reader is None:
                raise was_closed()
            return Reach(fd=self._reader, writer=self._writer, pid=self.pid, pidfd=self._pidfd)

    def anonymous(self) -> Anonymous:
        """The same memory, where it is private and no file's: what the process never touched there is zero.

        ``/proc/PID/pagemap`` tells which pages are there. Where the host's are larger than a guest's, all is read.
        """
        return Anonymous(self, self._open_beside("pagemap") if mmap.PAGESIZE == PAGE_SIZE else None)

    def arriving(self) -> Arriving:
        """The same memory while a migration has yet to bring some of it: what is not there is an error, not a wait."""
        return Arriving(self)

    def maps(self) -> OwnedFd | None:
        """``/proc/PID/maps``, the list of mappings; ``None`` if it cannot be opened."""
        return self._open_beside("maps")

    def open_for_writing(self) -> None:
        """Open the memory for writing. Raises ``PermissionDeniedError``, ``VmGoneError``, ``InvalidContextError``."""
        with self._lock:
            if self._reader is None:
                raise was_closed()
            if self._writer is None:
                self._writer = self._open(os.O_RDWR)

    def close(self) -> None:
        """Release the process; an access under way in another thread ends normally."""
        with self._lock:
            self._reader = self._writer = self._pidfd = None

    def _open(self, flags: int) -> OwnedFd:
        try:
            fd = OwnedFd.open(self._process.path("mem"), flags)
        except PermissionError as err:
            raise self._process.refused("mem") from err
        except OSError as err:
            raise failed(self.pid, err) from err
        if not self._process.alive:
            raise self._gone()
        return fd

    def _open_beside(self, name: str) -> OwnedFd | None:
        """A file of ``/proc/PID`` that tells more of the memory; ``None`` if it cannot be opened."""
        try:
            fd = OwnedFd.open(self._process.path(name), os.O_RDONLY)
        except OSError:
            return None
        return fd if self._process.alive else None

    def _gone(self) -> VmGoneError:
        return VmGoneError(f"process {self.pid} ended")


class _Part:
    """Memory of a process with something special about it; the classes below say what."""

    def __init__(self, memory: ProcessMemory) -> None:
        self._memory = memory

    def open_for_writing(self) -> None:
        """As :meth:`ProcessMemory.open_for_writing`."""
        self._memory.open_for_writing()


class ReadOnlyMemory:
    """A part of a process's memory that the process itself may not write: the kernel would let us force a write."""

    def __init__(self, memory: ProcessMemory | Arriving) -> None:
        self._memory = memory

    def reach(self) -> Reach:
        """As :meth:`ProcessMemory.reach`, without a way to write."""
        return replace(self._memory.reach(), writer=None)

    def open_for_writing(self) -> None:
        """Raises ``ReadOnlyError``."""
        raise ReadOnlyError("QEMU itself has this memory mapped read-only: it is not written")


class DeniedMemory:
    """Memory of a process that the system does not let us look into: it exists, and every access is refused."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._pidfd = life_of(process).pidfd

    def reach(self) -> Reach:
        """The process, and no way to its memory."""
        return Reach(pid=self._process.pid, pidfd=self._pidfd)

    def open_for_writing(self) -> None:
        """Raises ``PermissionDeniedError``."""
        raise denied(self._process.path("mem"))


class Departed:
    """The memory of a machine that goes on somewhere else: every access says that the machine is gone."""

    def __init__(self, process: Process, reason: str) -> None:
        self._process = process
        self._reason = reason
        self._nothing = OwnedFd.open("/dev/null", os.O_RDONLY)

    def reach(self) -> Reach:
        """A file that gives 0 bytes, as ``/proc/PID/mem`` of an ended process does: C says that the machine is gone."""
        return Reach(fd=self._nothing, pid=self._process.pid, arriving=True)

    def open_for_writing(self) -> None:
        """Raises ``VmGoneError``."""
        raise VmGoneError(self._reason)


class Awaited:
    """The memory of a machine that has yet to come: every access is an error, until the driver is asked again."""

    def __init__(self, reason: str) -> None:
        self._reason = reason
        self._nothing = OwnedFd.open("/dev/null", os.O_RDONLY)

    def reach(self) -> Reach:
        """A file that gives 0 bytes, which is an I/O error."""
        return Reach(fd=self._nothing, awaited=True)

    def open_for_writing(self) -> None:
        """Raises ``IoError``."""
        raise IoError(self._reason)


class Anonymous(_Part):
    """A part of a process's memory of which untouched pages need not be read; see :meth:`ProcessMemory.anonymous`."""

    def __init__(self, memory: ProcessMemory, pagemap: OwnedFd | None) -> None:
        super().__init__(memory)
        self._pagemap = pagemap

    def reach(self) -> Reach:
        """As :meth:`ProcessMemory.reach`, with the pages that there are."""
        return replace(self._memory.reach(), pagemap=self._pagemap)


@dataclass(frozen=True, slots=True)
class Place:
    """A mapping of a process: host addresses, the file behind it if ``inode`` is not 0, and the process's list of them.

    ``pieces`` is whether the list has it in several lines.
    """

    maps: OwnedFd
    start: int
    end: int
    offset: int
    device: int
    inode: int
    writable: bool
    shared: bool
    pieces: bool

    def row(self) -> Any:
        """A ``struct mvi_mapping``, as long as which this object has to live."""
        made = native().ffi.new("struct mvi_mapping *")
        made.fd, made.start, made.end = self.maps.number, self.start, self.end
        made.offset, made.device, made.inode = self.offset, self.device, self.inode
        made.writable, made.shared, made.pieces = self.writable, self.shared, self.pieces
        return made


class Movable:
    """A part of a process's memory, in one mapping, that the process may give up: something else may come there."""

    def __init__(self, source: ProcessMemory | Anonymous | Arriving | ReadOnlyMemory, place: Place) -> None:
        self._source = source
        self._place = place
        self._row = place.row()

    def reach(self) -> Reach:
        """As the whole memory's; what is read counts if the mapping is then still that one."""
        return replace(self._source.reach(), mapping=self._row)

    @property
    def moved(self) -> bool:
        """Whether a read has found another mapping there."""
        return bool(self._row.moved)

    def open_for_writing(self) -> None:
        """As :meth:`ProcessMemory.open_for_writing`."""
        self._source.open_for_writing()


class Arriving(_Part):
    """Memory some of which a migration has yet to bring; see :meth:`ProcessMemory.arriving`."""

    def reach(self) -> Reach:
        """As :meth:`ProcessMemory.reach`; a read of a page that is not there yet fails, and does not wait."""
        return replace(self._memory.reach(), arriving=True)
