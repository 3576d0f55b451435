# SPDX-License-Identifier: Apache-2.0
"""The QEMU driver: an unpatched QEMU on this machine, with KVM or TCG, private or shared RAM."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager

from libmicrovmi_py.arch.state import VcpuState
from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.drivers.base import Anew, Driver, Region, Source
from libmicrovmi_py.drivers.control import RUNS, Phase, RunState
from libmicrovmi_py.drivers.qemu import stops
from libmicrovmi_py.drivers.qemu.discovery import parse_endpoint, resolve, resolve_process
from libmicrovmi_py.drivers.qemu.events.ability import StubEvents, make_listener
from libmicrovmi_py.drivers.qemu.late import ask_left, heal
from libmicrovmi_py.drivers.qemu.layout import Asked, Layout
from libmicrovmi_py.drivers.qemu.memory import memory_of, read_from
from libmicrovmi_py.drivers.qemu.monitor import Monitor
from libmicrovmi_py.drivers.qemu.parameters import PARAMETERS, TIMEOUT
from libmicrovmi_py.drivers.qemu.pausing import PauseWatch
from libmicrovmi_py.drivers.qemu.places import is_of_libvirt
from libmicrovmi_py.errors import (
    InvalidArgumentError,
    MicrovmiError,
    VmGoneError,
    about_a_machine,
    logger,
    was_closed,
)
from libmicrovmi_py.model import DriverType, MemoryRange, end_of_ram
from libmicrovmi_py.params import Parameters
from libmicrovmi_py.transport.deadline import Deadline, limited
from libmicrovmi_py.transport.fds import StandardStreamsHeld
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.procmem import Awaited, Departed
from libmicrovmi_py.transport.qmp import QmpClient

if TYPE_CHECKING:
    from types import ModuleType

    from libmicrovmi_py.drivers.base import Taken
    from libmicrovmi_py.drivers.qemu.alone import LoneQemu
    from libmicrovmi_py.drivers.qemu.background import BackgroundSnapshots
    from libmicrovmi_py.drivers.qemu.devicestate import StateFile
    from libmicrovmi_py.drivers.qemu.events.listener import Listener
    from libmicrovmi_py.drivers.qemu.flatview import Extent
    from libmicrovmi_py.listed import ListedMachine
    from libmicrovmi_py.transport.copy import Copy
    from libmicrovmi_py.transport.watch import Watch

_log = logger(__name__)

_FORGETTING = 1.0
"""Seconds that the end of a machine may wait for its monitor, to take back what it holds."""


class QemuDriver(StubEvents, Driver):
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
    parameters = PARAMETERS

    def __init__(self, process: Process, monitor: Monitor, *, mapped: bool = True, watch: bool = False) -> None:
        """``mapped`` is whether shared RAM is mapped, ``watch`` whether somebody lets a machine run that we paused.

        Raises ``PermissionDeniedError`` or ``VmGoneError``.
        """
        self._process = process
        self.identity = process.identity
        self._monitor = monitor
        self._memory = memory_of(process, mapped)
        self._regions: tuple[Region, ...] = ()
        self._max_addr = 0
        self._layout = Layout()
        self._pauses = PauseWatch(wanted=watch)
        self._filled: bool | None = None  # whether all memory has arrived, as of the regions; None: they are not made
        self._seen: tuple[QmpClient | None, RunState] = None, RUNS
        self._closed = False
        self._state_file: StateFile | None = None
        self._background: BackgroundSnapshots | None = None
        self._owes_run = False  # whether run_later() may leave an order to run with QEMU
        self._stands = False  # whether it may stand by our stop: pages of it are kept then

    @classmethod
    def open(cls, params: Parameters) -> QemuDriver | LoneQemu:
        """Find the machine ``vm_name`` and read its memory map. One without a monitor is a :class:`LoneQemu`.

        Raises ``InvalidArgumentError`` for no or several such machines, ``DriverUnavailableError`` without a monitor
        that answers, ``PermissionDeniedError``, ``VmGoneError``, ``TimeoutExpiredError``.
        """
        if not params.yes("monitor", True):
            return _alone().open(params)
        timeout, mapped, watch = params.seconds("timeout", TIMEOUT), params.yes("mapped", True), params.on("watch")
        given = params.get("qmp", "")
        name = params.vm_name or (given if "/" in given else "")
        if not name:
            raise InvalidArgumentError("QEMU driver requires a VM name parameter (vm_name: a name, pid or QMP socket)")
        place = parse_endpoint(given) if given else None
        if "started" in params:
            qemu, endpoints = resolve_process(name, params.integer("started", 0), place)
        else:
            qemu, endpoints = resolve(name, place, Deadline(timeout))
        with about_a_machine():
            if not endpoints and not is_of_libvirt(qemu):
                return _alone().of(qemu, mapped=mapped)
            monitor = Monitor(qemu, endpoints, timeout, params.get("libvirt", ""))
            return cls._opened(qemu.process, monitor, mapped, watch)

    @classmethod
    def machines(cls) -> Iterator[ListedMachine]:
        """Every QEMU on this machine; see ``listing.py``."""
        with StandardStreamsHeld():
            from libmicrovmi_py.drivers.qemu import listing  # of whom opens a machine, nobody needs it
        return listing.machines(cls)

    @classmethod
    def _opened(cls, process: Process, monitor: Monitor, mapped: bool, watch: bool) -> QemuDriver:
        driver = cls(process, monitor, mapped=mapped, watch=watch)
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

    @contextmanager
    def session(self) -> Iterator[None]:
        """A block in which this thread connects once; QEMU serves nobody else at that monitor then."""
        with self._monitor.call():
            yield

    def leave_session(self) -> None:
        """Let go of the monitor within such a block: the next that is asked connects anew."""
        self._monitor.hang_up()

    def memory_map(self) -> Sequence[MemoryRange]:
        """The ranges that exist now, as QEMU tells them."""
        with self.session():
            self._read_map()
            self._forget_memory()
        return tuple(MemoryRange(region.start, region.size, region.kind) for region in self._regions)

    def run_state(self) -> RunState:
        """What QEMU's ``query-status`` tells."""
        with self._session() as client:
            state = self._look(client, self._listener)
            self._pauses.see(state)
            self._seen = client, state
            if state.phase is not Phase.RUNS:
                self._follow_map(client)
            return state

    def stop(self) -> None:
        """Stop all vCPUs. A map that cannot be read then stays the old one."""
        self._stands = True
        with self.session():
            asked, filled = self._order_stop()
            self._hold()
            try:
                with self._session() as client:
                    self._take_map(client, asked, filled)
            except MicrovmiError as err:
                _log.warning("the memory map stays as it was before the pause: %s", err)

    def _order_stop(self) -> tuple[Asked, bool]:
        """Stop the machine and begin to read its map; whether all memory has arrived."""
        with self._session() as client, self._pauses.order(client):
            migrating, order = client.ask("query-migrate"), client.ask("stop")
            asked = self._layout.ask(client)
            migration = stops.migration(migrating)
            self._owes_run = not stops.migrates(migration)
            word = stops.stopped(client, order)
            return asked, stops.is_filled(word, migration)

    def run(self, *, whoever: bool) -> None:
        """Let all vCPUs run, if QEMU's state is one in which that does no harm."""
        with self._session() as client:
            (connection, state), self._seen = self._seen, (None, RUNS)
            if not (self._listener and self._listener.release()):
                stops.run(client, state if connection is client else self._look(client), whoever=whoever)
            self._forget_state_file(client)
        self._pauses.end()
        self._owes_run = self._stands = False

    def run_later(self) -> None:
        """For a QEMU process that is itself stopped (SIGSTOP): leave it the order to run, see ``late.py``.

        Not if a migration was under way when the machine was stopped.
        """
        if self._owes_run and self._monitor.leave_run():
            self._owes_run = False
            _log.info("the machine runs when its QEMU goes on")

    def vcpu_count(self) -> int:
        """The number of vCPUs."""
        with self._asking() as client:
            status = client.ask("query-status")
            count = len(self._vcpus.Vcpus.of(client))
            self._state(stops.word(status))
            return count

    def read_states(self, vcpus: Sequence[int] | None) -> list[VcpuState]:
        """All registers of these vCPUs, or of all, at one moment; a machine that runs is stopped for it.

        What QEMU does not tell at present, see ``vcpus.py``, is not in them.
        """
        with self._asking() as client:
            return self._vcpus.states(client, self._state, self._get_state_file, vcpus)  # type: ignore[no-any-return]

    def read_unstopped(self, vcpu: int) -> VcpuState:
        """The registers that ``info registers`` shows; all if the machine stands, or is no x86 one."""
        if self._listener and (told := self._listener.registers(vcpu)):
            return VcpuState(self.architecture, told, "an event is open")
        with self._asking() as client:
            (state,) = self._vcpus.states(client, self._state, self._get_state_file, (vcpu,), unstopped=True)
            return state  # type: ignore[no-any-return]

    @property
    def writable_registers(self) -> Container[str]:
        """Those that QEMU's debugger's stub takes."""
        return self._writes.WRITABLE[self.architecture]  # type: ignore[no-any-return]

    def write_state(self, vcpu: int, values: Mapping[str, int]) -> None:
        """By QEMU's debugger's stub, of a machine that is paused, or stands at an event; see ``writes.write``."""
        if not (self._listener and self._listener.write(vcpu, values)):
            with self._asking() as client:
                self._writes.write(client, self._look(client), self._monitor.debuggers(), vcpu, values)

    def take_snapshot(self, copy: Copy, watch: Watch) -> Taken | None:
        """By QEMU's own snapshots in the background, see ``background.py``; of private RAM only."""
        if self._background is None:
            with StandardStreamsHeld():
                from libmicrovmi_py.drivers.qemu.background import BackgroundSnapshots, Machine
            # what was ordered is taken back after the end of this object, too
            machine = Machine(self._process, self.session, self._monitor.session, self._read_extents)
            self._background = BackgroundSnapshots(machine)
        return self._background.take(copy, watch)

    def close(self) -> None:
        """Release the process and the files."""
        if self._background:
            with limited(_FORGETTING):
                self._background.settle()
        if self._state_file and self._state_file.kept:
            with contextlib.suppress(MicrovmiError), limited(_FORGETTING), self._session() as client:
                self._forget_state_file(client)
        if self._listener:
            self._listener.forget()
            self._listener = None
        self._closed = True
        self._memory.close()

    def _listening(self) -> Listener:
        return make_listener(self._session, self._monitor.debuggers, self._guest)

    @property
    def _vcpus(self) -> ModuleType:
        with StandardStreamsHeld():
            from libmicrovmi_py.drivers.qemu import vcpus  # of whom reads memory only, nobody needs it
        return vcpus

    @property
    def _writes(self) -> ModuleType:
        with StandardStreamsHeld():
            from libmicrovmi_py.drivers.qemu import writes
        return writes

    def _get_state_file(self) -> StateFile:
        """Made at the first use; within a session only."""
        if self._state_file is None:
            with StandardStreamsHeld():
                from libmicrovmi_py.drivers.qemu.devicestate import StateFile
            self._state_file = StateFile()
        return self._state_file

    def _forget_state_file(self, client: QmpClient) -> None:
        if self._state_file:
            with contextlib.suppress(MicrovmiError):  # QEMU forgets it when its last client hangs up
                self._state_file.forget(client)

    @contextmanager
    def _session(self) -> Iterator[QmpClient]:
        if self._closed:
            raise was_closed()
        with self._monitor.session() as client:
            yield client

    @contextmanager
    def _asking(self) -> Iterator[QmpClient]:
        """A session of a call that is not about memory, and then a look at what others may have done to that."""
        with self._session() as client:
            yield client
            self._forget_memory()
            self._follow_map(client)

    def _forget_memory(self) -> None:
        """Others may have reset or loaded a machine that stands: nobody tells, so nothing is kept past an answer."""
        if self._stands:
            self._regions = Anew(self._regions)

    def _follow_map(self, client: QmpClient) -> None:
        """Read the map anew where memory may be plugged in, or QEMU told on this connection that something was.

        One that cannot be read stays the old one.
        """
        if not client.map_changed and not self._monitor.takes_memory():
            return
        client.map_changed = False
        try:
            self._read_map()
        except VmGoneError:
            raise
        except MicrovmiError as err:
            _log.warning("the memory map stays as it was: %s", err)

    def _look(self, client: QmpClient, listener: Listener | None = None) -> RunState:
        state = self._state(stops.word(client.ask("query-status")))
        return listener.seen(state) if listener else state

    def _state(self, word: str) -> RunState:
        """The run state of that word; a machine that was migrated away has no memory here any more."""
        try:
            return stops.run_state(word)
        except VmGoneError as err:
            self._regions = read_from(tuple(self._regions), Departed(self._process, str(err)))
            self._filled = None
            raise

    def _read_map(self) -> None:
        with self._session() as client:
            status, migrating = client.ask("query-status"), client.ask("query-migrate")
            target = None if self._regions else client.ask("query-target")
            left = ask_left(client) if target else None
            asked = self._layout.ask(client)
            word, migration = stops.word(status), stops.migration(migrating)
            self._state(word)
            if target and left:
                self.architecture = stops.architecture(target)
                heal(client, self._process, left)
            if stops.is_awaited(word, migration):
                source = Awaited("the machine waits for a migration (inmigrate): its memory has yet to come")
                self._take_map(client, asked, False, source)
            else:
                self._take_map(client, asked, stops.is_filled(word, migration))

    def _read_extents(self) -> Sequence[Extent]:
        """Where the memory of the map lies that is read now."""
        self._read_map()
        return self._layout.extents

    def _take_map(self, client: QmpClient, asked: Asked, filled: bool, instead: Source | None = None) -> None:
        """The map that was asked for becomes the machine's; nothing is done for one that is the same.

        ``instead`` is where nothing of the memory is there yet: what it is to be read from.
        """
        extents, same = self._layout.take(client, asked)
        if same and filled == self._filled and not (self._memory.has_unsteady_files or self._memory.has_moved):
            return
        self._filled = None
        self._memory.ask(client, extents)
        regions = read_from(self._memory.regions(extents, filled=filled), instead)
        if regions != self._regions:  # another object has everything above made anew
            self._max_addr = end_of_ram(regions)
            self._regions = regions
        self._filled = None if instead else filled


def _alone() -> type[LoneQemu]:
    with StandardStreamsHeld():
        from libmicrovmi_py.drivers.qemu.alone import LoneQemu  # most machines have a monitor
    return LoneQemu


DRIVER = QemuDriver
