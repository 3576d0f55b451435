# SPDX-License-Identifier: Apache-2.0
"""A machine of which nothing is known but its memory, which is where the process that runs it has it.

Nobody is asked. That process is looked at, which takes the rights of a debugger, and what it has mapped of a certain
size is the machine's memory: drivers say which sizes, and where they are in the guest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.base import Driver, Region, Source
from libmicrovmi_py.errors import IoError, VmGoneError, logger, was_closed
from libmicrovmi_py.model import MemoryKind, MemoryRange, end_of_ram
from libmicrovmi_py.transport.backing import open_backings
from libmicrovmi_py.transport.life import life_of
from libmicrovmi_py.transport.mapping import HostMapping
from libmicrovmi_py.transport.processes import Process, Vma
from libmicrovmi_py.transport.procmem import ProcessMemory

_log = logger(__name__)


class Held(NamedTuple):
    """Main memory that lies in one mapping of the process: guest address, size, mapping, offset in that; in bytes."""

    start: int
    size: int
    vma: Vma
    offset: int


class HostedDriver(Driver):
    """What such machines have in common. Shared memory in files is mapped, all other read from the process."""

    def __init__(self, process: Process, memory: Iterable[Held], *, mapped: bool) -> None:
        """``memory`` ascends. ``mapped`` is whether files are mapped, or else read.

        Raises ``PermissionDeniedError`` or ``VmGoneError``.
        """
        self._process = process
        self.identity = process.identity
        self._held = tuple(memory)
        self._mapped = mapped
        self._life = life_of(process)
        self._memory: ProcessMemory | None = ProcessMemory(process, self._life)
        self._files: dict[Vma, HostMapping] = {}
        self._regions = self._find(self._memory)

    @property
    def max_addr(self) -> int:
        """One past the last byte of RAM."""
        return end_of_ram(self._regions)

    def regions(self) -> Sequence[Region]:
        """All main memory."""
        return self._regions

    def memory_map(self) -> Sequence[MemoryRange]:
        """The ranges of main memory. Raises ``VmGoneError``, and ``IoError`` if the process has it no more."""
        if self._memory is None:
            raise was_closed()
        if not self._process.alive:
            raise VmGoneError(f"process {self._process.pid} ended")
        for vma in dict.fromkeys(held.vma for held in self._held):
            if vma not in self._process.areas(vma.end - vma.start):
                raise IoError(f"process {self._process.pid} has the machine's memory no more where it was")
        return tuple(MemoryRange(region.start, region.size) for region in self._regions)

    def close(self) -> None:
        """Release the process and the files."""
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.close()
        for mapping in self._files.values():
            mapping.close()

    def _find(self, memory: ProcessMemory) -> tuple[Region, ...]:
        vmas = dict.fromkeys(held.vma for held in self._held)
        opened = open_backings(self._process, [vma for vma in vmas if vma.is_shared_file])
        for vma, fd in opened.items():
            try:
                size = vma.end - vma.start
                mapping = HostMapping(fd, vma.offset, size, writable=True, mapped=self._mapped, life=self._life)
            except (OSError, ValueError) as err:
                _log.debug("%s cannot be mapped (%s): reading the memory of process %d", vma.path, err, memory.pid)
                continue
            self._files[vma] = mapping
        return tuple(self._region(held, memory) for held in self._held)

    def _region(self, held: Held, memory: ProcessMemory) -> Region:
        source: Source = memory.anonymous() if held.vma.is_anonymous else memory
        offset = held.vma.start + held.offset
        if held.vma in self._files:
            source, offset = self._files[held.vma], held.offset
        return Region(held.start, held.size, MemoryKind.RAM, source, offset)
