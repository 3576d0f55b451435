# SPDX-License-Identifier: Apache-2.0
"""The QEMU driver: an unpatched QEMU on this machine, with KVM or TCG, private or shared RAM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from libmicrovmi_py.drivers.base import Driver, Region
from libmicrovmi_py.drivers.qemu import control
from libmicrovmi_py.drivers.qemu.discovery import parse_endpoint, resolve
from libmicrovmi_py.drivers.qemu.memory import HostMemory, is_filled, read_pieces
from libmicrovmi_py.drivers.qemu.monitor import Monitor
from libmicrovmi_py.errors import InvalidArgumentError, InvalidContextError, MicrovmiError, logger
from libmicrovmi_py.model import DriverType, MemoryKind, MemoryRange, Registers
from libmicrovmi_py.params import Parameters
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.qmp import QmpClient

_log = logger(__name__)

_TIMEOUT = 10.0


class QemuDriver(Driver):
    """A virtual machine of QEMU, found by its name, its process id or the path of a QMP socket.

    Memory is read where QEMU has it, without QEMU: shared RAM is mapped, private RAM read from the process, which
    takes the rights of a debugger. QMP tells the memory map, runs and stops the machine and gives the registers; it is
    connected only meanwhile, so that others can use the same monitor.

    Main memory is RAM, memory that the guest cannot write at present (firmware, shadowed BIOS) is ROM, video memory
    and memory shared through ivshmem is DEVICE. Registers of devices, passed-through ones included, do not exist.
    The map is read at open, by :meth:`memory_map` and by :meth:`pause`.

    QEMU does not notice writes from outside. Under TCG, code that it has translated already goes on as it was until
    the guest itself writes to that page or QEMU drops the translation. A live migration or a snapshot that is under
    way misses pages written here.
    """

    name = "qemu"
    type = DriverType.QEMU
    parameters = {  # noqa: RUF012
        "qmp": "path or HOST:PORT of the QMP socket to use, instead of those on QEMU's command line",
        "timeout": f"seconds that an operation on the monitor may take, {_TIMEOUT:g} if not given",
    }

    def __init__(self, process: Process, monitor: Monitor) -> None:
        """Raises ``PermissionDeniedError`` or ``VmGoneError``."""
        self._monitor = monitor
        self._memory = HostMemory(process)
        self._regions: tuple[Region, ...] = ()
        self._max_addr = 0
        self._closed = False

    @classmethod
    def open(cls, params: Parameters) -> QemuDriver:
        """Find the machine ``vm_name`` and read its memory map.

        Raises ``InvalidArgumentError`` for no or several such machines, ``DriverUnavailableError`` without a monitor
        that answers, ``PermissionDeniedError``, ``VmGoneError``, ``TimeoutExpiredError``.
        """
        timeout = params.seconds("timeout", _TIMEOUT)
        given = params.get("qmp", "")
        name = params.vm_name or (given if "/" in given else "")
        if not name:
            raise InvalidArgumentError("QEMU driver requires a VM name parameter (vm_name: a name, pid or QMP socket)")
        qemu, endpoints = resolve(name, parse_endpoint(given) if given else None, Deadline(timeout))
        driver = cls(qemu.process, Monitor(qemu, endpoints, timeout))
        try:
            driver._read_map()
        except BaseException:
            driver.close()
            raise
        return driver

    @property
    def max_addr(self) -> int:
        """One past the last byte of RAM, as of the last time the map was read."""
        return self._max_addr

    def regions(self) -> Sequence[Region]:
        """All memory, as of the last time the map was read."""
        return self._regions

    def memory_map(self) -> Sequence[MemoryRange]:
        """The ranges that exist now, as QEMU tells them."""
        self._read_map()
        return tuple(MemoryRange(region.start, region.size, region.kind) for region in self._regions)

    def pause(self) -> bool:
        """Stop all vCPUs; ``True`` if they ran before. A map that cannot be read then stays the old one."""
        with self._session() as client:
            ran = control.stop(client)
        try:
            self._read_map()
        except MicrovmiError as err:
            _log.warning("the memory map stays as it was before the pause: %s", err)
        return ran

    def resume(self) -> None:
        """Let all vCPUs run."""
        with self._session() as client:
            control.run(client)

    def vcpu_count(self) -> int:
        """The number of vCPUs."""
        with self._session() as client:
            return len(control.vcpu_indexes(client))

    def read_registers(self, vcpu: int) -> Registers:
        """The registers that ``info registers`` shows; see ``registers.py`` for those it does not."""
        with self._session() as client:
            return control.registers(client, vcpu)

    def close(self) -> None:
        """Release the process and the files."""
        self._closed = True
        self._memory.close()

    @contextmanager
    def _session(self) -> Iterator[QmpClient]:
        if self._closed:
            raise InvalidContextError("the machine was closed")
        with self._monitor.session() as client:
            yield client

    def _read_map(self) -> None:
        with self._session() as client:
            regions = self._memory.regions(read_pieces(client), filled=is_filled(client))
            self._max_addr = max((item.end for item in regions if item.kind is MemoryKind.RAM), default=0)
            self._regions = regions


DRIVER = QemuDriver
