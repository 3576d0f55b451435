# SPDX-License-Identifier: Apache-2.0
"""Guest memory in large requests."""

from __future__ import annotations

from libmicrovmi_py.drivers.virtualbox.abi import READ_LIMIT, WRITE_LIMIT
from libmicrovmi_py.drivers.virtualbox.fdp import Machine
from libmicrovmi_py.errors import IoError, not_mapped
from libmicrovmi_py.model import PAGE_SIZE

_BELOW_HOLE = 0xE0000000
_HOLE_SIZE = 0x20000000


class Memory:
    """Memory by address. VirtualBox answers a request as a whole, so what has a hole is asked for in parts."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def end_of_ram(self) -> int:
        """One past the last byte: VirtualBox tells the size, and puts what is above 3.5 GiB behind 4 GiB."""
        size = self._machine.ram_size
        end = size + _HOLE_SIZE
        if size > _BELOW_HOLE and self.read(end - 1, memoryview(bytearray(1))):
            return end
        return size

    def read_range(self, address: int, buffer: memoryview) -> int:
        """Fill ``buffer`` up to the first frame that does not exist; the length of that."""
        done = 0
        while done < len(buffer):
            piece = buffer[done : done + READ_LIMIT]
            got = self._read_prefix(address + done, piece)
            done += got
            if got < len(piece):
                break
        return done

    def _read_prefix(self, address: int, buffer: memoryview) -> int:
        """A request for all; only if that fails the first frame, and then ever smaller pieces of the rest."""
        size, first = len(buffer), min(PAGE_SIZE - address % PAGE_SIZE, len(buffer))
        if self.read(address, buffer):
            return size
        if first < size and self.read(address, buffer[:first]):
            return self._grow(address, buffer, first, -(-(size - first) // PAGE_SIZE) // 2)
        return 0

    def _grow(self, address: int, buffer: memoryview, done: int, step: int) -> int:
        """Read on after ``done`` bytes, ``step`` frames at once, half as many each time that some do not exist."""
        while step and done < len(buffer):
            end = min(done + step * PAGE_SIZE, len(buffer))
            if self.read(address + done, buffer[done:end]):
                done = end
            else:
                step //= 2
        return done

    def read_exactly(self, address: int, buffer: memoryview) -> None:
        """One request. Raises ``NotMappedError`` if not all of it exists."""
        if not self.read(address, buffer):
            raise not_mapped(address)

    def read(self, address: int, buffer: memoryview) -> bool:
        """One request, of at most ``READ_LIMIT`` bytes; ``False`` if not all of it exists, the buffer is as it was."""
        if not buffer:
            return True
        before = buffer[0]
        done = False
        try:
            with self._machine.ffi.from_buffer("uint8_t[]", buffer, require_writable=True) as target:
                done = bool(self._machine.call("FDP_ReadPhysicalMemory", target, len(buffer), address))
        finally:
            if not done:
                buffer[0] = before
        return done

    def write_range(self, address: int, data: memoryview) -> None:
        """Write what was found to exist, in pieces of at most ``WRITE_LIMIT`` bytes."""
        for done in range(0, len(data), WRITE_LIMIT):
            piece = data[done : done + WRITE_LIMIT]
            with self._machine.ffi.from_buffer("uint8_t[]", piece) as source:
                written = self._machine.call("FDP_WritePhysicalMemory", source, len(piece), address + done)
            if not written:
                self._refused(address, done, len(data))

    def _refused(self, address: int, done: int, size: int) -> None:
        at = address + done
        if done == 0 and not self.read(at, memoryview(bytearray(1))):
            raise not_mapped(at)
        raise IoError(f"VirtualBox refused to write at {at:#x}", address=at, requested=size, completed=done)
