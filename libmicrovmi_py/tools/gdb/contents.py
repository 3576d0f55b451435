# SPDX-License-Identifier: Apache-2.0
"""Packets about what is in a machine that stands: the registers of a vCPU, and memory as it sees it."""

from __future__ import annotations

from libmicrovmi_py.errors import MicrovmiError, VmGoneError
from libmicrovmi_py.tools.gdb.packets import LARGEST_READ, MALFORMED, NO_MEMORY, escaped, natural, unescaped
from libmicrovmi_py.tools.gdb.places import Places
from libmicrovmi_py.tools.gdb.registers import decoded, encoded
from libmicrovmi_py.tools.gdb.vcpus import Vcpus


class Contents:
    """Their answers; ``thread`` is the vCPU that they are about. They raise ``ValueError`` for what makes no sense."""

    def __init__(self, vcpus: Vcpus, places: Places) -> None:
        self._vcpus = vcpus
        self._places = places
        self.thread = 0

    # --------------------------------------------------------------------------------------------------- registers

    def all_registers(self, _: bytes) -> bytes:
        """``g``."""
        values = self._vcpus.values(self.thread)
        return b"".join(encoded(register, values) for register in self._vcpus.layout.registers)

    def register(self, rest: bytes) -> bytes:
        """``p``."""
        register = self._vcpus.layout.registers[natural(rest)]
        return encoded(register, self._vcpus.values(self.thread))

    def write_register(self, rest: bytes) -> bytes:
        """``P``."""
        number, value = rest.split(b"=")
        register = self._vcpus.layout.registers[natural(number)]
        self._vcpus.write(self.thread, {register: decoded(register, value)})
        return b"OK"

    def write_all_registers(self, rest: bytes) -> bytes:
        """``G``: those that are different; a client may send what it knows only."""
        values = self._vcpus.values(self.thread)
        wanted, start = {}, 0
        for register in self._vcpus.layout.registers:
            text, start = rest[start : start + 2 * register.size], start + 2 * register.size
            if not text or b"x" in text:
                continue
            if text.lower() != encoded(register, values):
                wanted[register] = decoded(register, text)
        known = {register: value for register, value in wanted.items() if register.source in values}
        if known:
            self._vcpus.write(self.thread, known)
        return b"OK"

    # ------------------------------------------------------------------------------------------------------ memory

    def _read(self, rest: bytes, most: int) -> bytes | None:
        address, size = (natural(item) for item in rest.split(b","))
        try:
            data = self._vcpus.read(self.thread, address, min(size, most))
        except VmGoneError:
            raise
        except (MicrovmiError, OSError):
            return None
        return data if self._vcpus.physical else self._places.hidden(address, data)

    def memory(self, rest: bytes) -> bytes:
        """``m``."""
        data = self._read(rest, LARGEST_READ)
        return NO_MEMORY if data is None else data.hex().encode()

    def binary_memory(self, rest: bytes) -> bytes:
        """``x``."""
        data = self._read(rest, LARGEST_READ)
        return NO_MEMORY if data is None else b"b" + escaped(data)

    def write_memory(self, rest: bytes) -> bytes:
        """``M``."""
        head, data = rest.split(b":", 1)
        return self._write(head, bytes.fromhex(data.decode("ascii")))

    def write_binary_memory(self, rest: bytes) -> bytes:
        """``X``."""
        head, data = rest.split(b":", 1)
        return self._write(head, unescaped(data))

    def _write(self, head: bytes, data: bytes) -> bytes:
        address, size = (natural(item) for item in head.split(b","))
        if size != len(data):
            return MALFORMED
        if not data:
            return b"OK"
        try:
            with self._places.lifted(address, size):
                self._vcpus.write_memory(self.thread, address, data)
        except VmGoneError:
            raise
        except MicrovmiError:
            return NO_MEMORY
        finally:
            self._vcpus.forget()
        return b"OK"
