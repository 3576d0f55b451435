# SPDX-License-Identifier: Apache-2.0
"""Upstream's machine: ``MicrovmiExt``, which its native module has, and ``Microvmi`` with two streams on top of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from libmicrovmi_py.compat.parameters import DriverInitParamsPy, DriverType, parameters
from libmicrovmi_py.compat.streams import PaddedPhysicalMemoryIO, PhysicalMemoryIO
from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.errors import MicrovmiError
from libmicrovmi_py.machine.microvmi import Microvmi as Machine

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


@contextmanager
def _told() -> Iterator[None]:
    """Upstream's errors are ``ValueError``s, all of them."""
    try:
        yield
    except MicrovmiError as err:
        raise ValueError(str(err)) from err


class MicrovmiExt:
    """A machine that is open until this object is gone. ``machine`` is ours, with all that upstream has not."""

    def __init__(self, driver_type: int | None = None, init_params: DriverInitParamsPy | None = None) -> None:
        with _told():
            self.machine = Machine.from_parameters(parameters(driver_type, init_params))

    def read_physical(self, paddr: int, size: int) -> tuple[bytes, int]:
        """``size`` bytes, zeros behind the first that does not exist, and how many there are before that one."""
        data = bytearray(size)
        done = self.read_physical_into(paddr, data)
        return bytes(data), done

    def read_physical_into(self, paddr: int, buffer: WriteableBuffer) -> int:
        """Fill ``buffer`` up to the first byte that does not exist; how many that are, 0 included."""
        with _told():
            return self.machine.read_physical_into(paddr, buffer)

    def read_padded_into(self, paddr: int, buffer: WriteableBuffer) -> None:
        """Fill ``buffer``; what does not exist is zeros. Upstream has this in its stream alone."""
        with _told():
            self.machine.read_physical_padded_into(paddr, buffer)

    def pause(self) -> None:
        """Stop the machine."""
        with _told():
            self.machine.pause()

    def resume(self) -> None:
        """Let it run."""
        with _told():
            self.machine.resume()

    def get_max_physical_addr(self) -> int:
        """One past the last byte of RAM."""
        with _told():
            return self.machine.max_addr

    def __del__(self) -> None:
        if "machine" in vars(self):
            self.machine.close()


class Microvmi:
    """Upstream's class, with its two streams."""

    def __init__(self, driver_type: DriverType | None = None, init_params: DriverInitParamsPy | None = None) -> None:
        self._micro = MicrovmiExt(None if driver_type is None else driver_type.value, init_params)
        self._memory = PhysicalMemoryIO(self._micro)
        self._padded_memory = PaddedPhysicalMemoryIO(self._micro)

    @property
    def memory(self) -> PhysicalMemoryIO:
        """The plain stream, always the same."""
        return self._memory

    @property
    def padded_memory(self) -> PaddedPhysicalMemoryIO:
        """The padded stream, always the same."""
        return self._padded_memory

    @property
    def max_addr(self) -> int:
        """One past the last byte of RAM."""
        return self._micro.get_max_physical_addr()

    def read_physical(self, paddr: int, size: int) -> tuple[bytes, int]:
        """As :meth:`MicrovmiExt.read_physical`; upstream's says that it returns bytes, and returns both."""
        return self._micro.read_physical(paddr, size)

    def read_physical_into(self, paddr: int, buffer: WriteableBuffer) -> int:
        """As :meth:`MicrovmiExt.read_physical_into`."""
        return self._micro.read_physical_into(paddr, buffer)

    def pause(self) -> None:
        """Stop the machine."""
        self._micro.pause()

    def resume(self) -> None:
        """Let it run."""
        self._micro.resume()
