# SPDX-License-Identifier: Apache-2.0
"""The QEMU driver: an unpatched QEMU on this machine, with KVM or TCG, private or shared RAM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from libmicrovmi_py.arch.x86.registers import X86Registers
from libmicrovmi_py.declare import replace
from libmicrovmi_py.drivers.base import Driver, Region, RunState
from libmicrovmi_py.drivers.qemu import stops, vcpus
from libmicrovmi_py.drivers.qemu.discovery import parse_endpoint, resolve
from libmicrovmi_py.drivers.qemu.files import SharedFiles
from libmicrovmi_py.drivers.qemu.memory import HostMemory, is_filled, read_extents
from libmicrovmi_py.drivers.qemu.monitor import Monitor
from libmicrovmi_py.errors import (
    InvalidArgumentError,
    MicrovmiError,
    PermissionDeniedError,
    VmGoneError,
    about_a_machine,
    logger,
    was_closed,
)
from libmicrovmi_py.model import DriverType, MemoryRange, end_of_ram
from libmicrovmi_py.params import Parameters
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.procmem import Departed
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
    The map is read at open, by :meth:`memory_map` and by :meth:`stop`. A machine that was migrated away is gone:
    whatever asks QEMU says so, and from then on its memory too.

    QEMU does not notice writes from outside. Under TCG, code that it has translated already goes on as it was until
    the guest itself writes to that page or QEMU drops the translation. A live migration or a snapshot that is under
    way misses pages written here.
    """

    name = "qemu"
    type = DriverType.QEMU
    parameters = {  # noqa: RUF012
        "qmp": "path or HOST:PORT of the QMP socket to use, instead of those on QEMU's command line",
        "mapped": "no: shared RAM is not mapped but read by system calls; yes if not given",
        "timeout": f"seconds that an operation on the monitor may take, {_TIMEOUT:g} if not given",
    }

    def __init__(self, process: Process, monitor: Monitor, *, mapped: bool = True) -> None:
        """``mapped`` is whether shared RAM is mapped. Raises ``PermissionDeniedError`` or ``VmGoneError``."""
        self._process = process
        self._monitor = monitor
        self._memory = _memory_of(process, mapped)
        self._regions: tuple[Region, ...] = ()
        self._max_addr = 0
        self._closed = False
        self._owes_run = False  # whether run_later() may leave an order to run with QEMU

    @classmethod
    def open(cls, params: Parameters) -> QemuDriver:
        """Find the machine ``vm_name`` and read its memory map.

        Raises ``InvalidArgumentError`` for no or several such machines, ``DriverUnavailableError`` without a monitor
        that answers, ``PermissionDeniedError``, ``VmGoneError``, ``TimeoutExpiredError``.
        """
        timeout, mapped = params.seconds("timeout", _TIMEOUT), params.yes("mapped", True)
        given = params.get("qmp", "")
        name = params.vm_name or (given if "/" in given else "")
        if not name:
            raise InvalidArgumentError("QEMU driver requires a VM name parameter (vm_name: a name, pid or QMP socket)")
        qemu, endpoints = resolve(name, parse_endpoint(given) if given else None, Deadline(timeout))
        with about_a_machine():
            return cls._opened(qemu.process, Monitor(qemu, endpoints, timeout), mapped)

    @classmethod
    def _opened(cls, process: Process, monitor: Monitor, mapped: bool) -> QemuDriver:
        driver = cls(process, monitor, mapped=mapped)
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

    def run_state(self) -> RunState:
        """What QEMU's ``query-status`` tells."""
        with self._session() as client:
            return self._look(client)

    def stop(self) -> None:
        """Stop all vCPUs. A map that cannot be read then stays the old one."""
        with self._session() as client:
            self._owes_run = not stops.migrates(client)
            stops.stop(client)
        try:
            self._read_map()
        except MicrovmiError as err:
            _log.warning("the memory map stays as it was before the pause: %s", err)

    def run(self, *, whoever: bool) -> None:
        """Let all vCPUs run, if QEMU's state is one in which that does no harm."""
        with self._session() as client:
            stops.run(client, whoever=whoever)
        self._owes_run = False

    def run_later(self) -> None:
        """For a QEMU process that is itself stopped (SIGSTOP): leave it the order to run, see ``late.py``.

        Not if a migration was under way when the machine was stopped.
        """
        if self._owes_run and self._monitor.leave_run():
            self._owes_run = False
            _log.info("the machine runs when its QEMU goes on")

    def vcpu_count(self) -> int:
        """The number of vCPUs."""
        with self._session() as client:
            self._look(client)
            return len(vcpus.vcpu_indexes(client))

    def read_registers(self, vcpu: int) -> X86Registers:
        """The registers that ``info registers`` shows; see ``vcpus.py`` for those it does not."""
        with self._session() as client:
            self._look(client)
            return vcpus.registers(client, vcpu)

    def close(self) -> None:
        """Release the process and the files."""
        self._closed = True
        self._memory.close()

    @contextmanager
    def _session(self) -> Iterator[QmpClient]:
        if self._closed:
            raise was_closed()
        with self._monitor.session() as client:
            yield client

    def _look(self, client: QmpClient) -> RunState:
        """The run state; a machine that was migrated away has no memory here any more."""
        try:
            return stops.run_state(client)
        except VmGoneError as err:
            away = Departed(self._process, str(err))
            self._regions = tuple(replace(region, source=away) for region in self._regions)
            raise

    def _read_map(self) -> None:
        with self._session() as client:
            self._look(client)
            filled = is_filled(client)
            extents = read_extents(client)
            if isinstance(self._memory, SharedFiles):
                self._memory.ask(client, extents)
            regions = self._memory.regions(extents, filled=filled)
            self._max_addr = end_of_ram(regions)
            self._regions = regions


def _memory_of(process: Process, mapped: bool) -> HostMemory | SharedFiles:
    """The memory of a QEMU: read through the process, or through its files if the process may not be looked into."""
    try:
        return HostMemory(process, mapped=mapped)
    except PermissionDeniedError as err:
        return SharedFiles(process, err, mapped=mapped)


DRIVER = QemuDriver
