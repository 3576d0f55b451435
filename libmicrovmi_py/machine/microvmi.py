# SPDX-License-Identifier: Apache-2.0
"""The whole object: the driver, its driver type, the plain and the padded memory, run state, registers, events."""

from __future__ import annotations

import functools
import threading
from _weakref import ref as weak
from collections.abc import Mapping, Sequence
from types import TracebackType

from libmicrovmi_py.abilities import Abilities, Ability, with_snapshots
from libmicrovmi_py.declare import TYPE_CHECKING, TypeVar
from libmicrovmi_py.drivers.base import (
    ABILITIES,
    Driver,
    SupportsEvents,
    SupportsStateWrites,
    SupportsVcpus,
    SupportsVcpuStates,
)
from libmicrovmi_py.drivers.control import SupportsPause
from libmicrovmi_py.drivers.registry import open_driver
from libmicrovmi_py.errors import InvalidArgumentError, NotSupportedError, was_closed
from libmicrovmi_py.events import ALL_VCPUS, NO_EVENTS, Event, EventKind, Intercept, PageAccess, Reply
from libmicrovmi_py.machine.books import Books
from libmicrovmi_py.machine.events import EventSession
from libmicrovmi_py.machine.images import Images
from libmicrovmi_py.machine.keeping import CACHE_SIZE, cache_size, keeper
from libmicrovmi_py.machine.runstate import RunBooks, one_session
from libmicrovmi_py.machine.snapshots import Snapshots
from libmicrovmi_py.memory import Memory, PaddedMemory, PhysicalMemory
from libmicrovmi_py.memory.batch import Result
from libmicrovmi_py.memory.checks import memory_map
from libmicrovmi_py.memory.guest import hand_over
from libmicrovmi_py.model import PAGE_SHIFT, DriverType, MemoryRange, check_architecture
from libmicrovmi_py.params import Parameters
from libmicrovmi_py.transport.fds import StandardStreamsHeld

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from libmicrovmi_py.arch import Registers
    from libmicrovmi_py.arch.state import VcpuState
    from libmicrovmi_py.memory.virtual import AddressSpace

_Part = TypeVar("_Part")


class Microvmi(Snapshots, Images):
    """An open virtual machine.

    ``Microvmi("debian")`` tries every driver; ``Microvmi("debian", driver="qemu", timeout=2)`` names one and hands it
    parameters; ``Microvmi.open("vmi://qemu/?vm_name=debian")`` does it by text. Use it as a context manager, or call
    :meth:`close`. All methods may be called from any thread.

    ``memory`` and ``padded_memory`` are files (``io.RawIOBase``) with a cursor each; ``driver`` is the driver itself.
    """

    def __init__(self, vm_name: str | None = None, *, driver: str | None = None, **parameters: object) -> None:
        values = {key: None if value is None else str(value) for key, value in parameters.items()}
        params = Parameters({"vm_name": vm_name, **values}, driver=driver)
        self._attach(open_driver(params), cache_size(params))

    @classmethod
    def open(cls, uri: str) -> Microvmi:
        """Open ``vmi://DRIVER/?key=value&...``, ``file:///PATH``, or a path to a memory image."""
        with StandardStreamsHeld():  # of what the text needs something may have to be imported
            params = Parameters.from_uri(uri)
        return cls.from_parameters(params)

    @classmethod
    def from_parameters(cls, params: Parameters) -> Microvmi:
        """Open what parsed parameters name."""
        return cls.from_driver(open_driver(params), cache=cache_size(params))

    @classmethod
    def from_driver(cls, driver: Driver, *, cache: int = CACHE_SIZE) -> Microvmi:
        """Put the whole on top of an open driver, and own it from now on.

        While this object keeps the machine paused, and always if its memory never changes, up to ``cache`` bytes of
        pages that were read are kept, 0 for none.
        """
        machine = cls.__new__(cls)
        machine._attach(driver, cache)
        return machine

    def _attach(self, driver: Driver, cache: int) -> None:
        try:
            self._put_together(driver, cache)
        except BaseException:
            driver.close()
            raise

    def _put_together(self, driver: Driver, cache: int) -> None:
        physical = PhysicalMemory(driver, cache if driver.static else 0)
        hand_over(physical, driver)
        self.driver = driver
        self.driver_type: DriverType = driver.type
        self._physical = physical
        self.memory = Memory(driver, physical)
        self.padded_memory = PaddedMemory(driver, physical)
        self._streams: list[weak[Memory | PaddedMemory]] = []
        self._run = RunBooks(driver, keeper(driver, physical, cache)) if isinstance(driver, SupportsPause) else None
        self._events = EventSession(driver, driver.name) if isinstance(driver, SupportsEvents) else None
        self._books = Books(self._run, self._events)
        self._closing = threading.Lock()
        self._closed = False
        if not driver.static and driver.lasting and cache and physical.direct is not None:
            physical.direct.keep_translations()
        physical.table()  # what the driver tells of its memory is checked now, not at the first read

    @property
    def physical(self) -> PhysicalMemory:
        """Memory by address."""
        return self._physical

    @functools.cached_property
    def _can(self) -> Ability:
        return self.driver.abilities  # which stay as they are

    @property
    def abilities(self) -> Abilities:
        """What this machine can; nobody is asked, and nothing changes."""
        self._check_open()
        can = self._can
        events = NO_EVENTS if self._events is None else self._events.abilities
        if not events.kinds:
            can &= ~Ability.EVENTS
        if EventKind.PAGE_ACCESS not in events.kinds:
            can &= ~Ability.PAGE_ACCESS
        if self._physical.is_mapped:
            can |= Ability.MAP
        return Abilities(with_snapshots(can), events)

    def open_memory(self, *, padded: bool = False) -> Memory | PaddedMemory:
        """A stream of the caller's own, with a cursor at 0: to hand to who closes it, or moves it.

        ``padded``: what does not exist is zeros. Closing it leaves the machine open; :meth:`close` closes it as well.
        """
        with self._closing:
            self._check_open()
            stream = (PaddedMemory if padded else Memory)(self.driver, self._physical)
            self._streams = [ref for ref in self._streams if ref() is not None] + [weak(stream)]
        return stream

    # -------------------------------------------------------------------------------------------- memory by address

    @property
    def max_addr(self) -> int:
        """The maximum address: one past the last byte of RAM."""
        self._check_open()
        return self._physical.max_addr

    def read_physical(self, address: int, size: int) -> bytes:
        """``size`` bytes at ``address``; ``NotMappedError`` (with ``completed``) unless all exist."""
        self._check_open()
        return self._physical.read(address, size)

    def read_physical_exactly_into(self, address: int, buffer: WriteableBuffer) -> None:
        """Fill ``buffer``; ``NotMappedError`` (with ``completed``, the valid prefix) unless all of it exists."""
        self._check_open()
        self._physical.read_exactly_into(address, memoryview(buffer).cast("B"))

    def read_physical_into(self, address: int, buffer: WriteableBuffer) -> int:
        """Fill ``buffer`` up to the first byte that does not exist and return that length, 0 included."""
        self._check_open()
        return self._physical.read_into(address, memoryview(buffer).cast("B"))

    def read_physical_padded_into(self, address: int, buffer: WriteableBuffer) -> None:
        """Fill ``buffer``; what does not exist is zeros."""
        self._check_open()
        self._physical.read_padded_into(address, memoryview(buffer).cast("B"))

    def read_physical_batch(self, requests: Sequence[tuple[int, WriteableBuffer]]) -> list[Result]:
        """Fill many (address, buffer) pairs in as few trips as can be.

        A result each: ``done``, the length of the valid prefix, and ``error``, ``None`` if that is all.
        """
        self._check_open()
        return self._physical.read_batch(requests)

    def map_physical(self, address: int, size: int) -> memoryview:
        """The guest's memory itself, read-only, without a copy; it stays valid as long as anybody holds it.

        Raises ``NotSupportedError`` where memory is not mapped into this process, ``NotMappedError`` unless the range
        (of at least one byte) exists in one piece.
        """
        self._check_open()
        if size < 1:
            raise InvalidArgumentError(f"size is {size}: at least 1 byte can be mapped")
        return self._physical.view(address, size)

    def write_physical(self, address: int, data: ReadableBuffer) -> None:
        """Write ``data`` at ``address``, all or nothing."""
        self._check_open()
        self._physical.write_from(address, memoryview(data).cast("B"))

    # ----------------------------------------------------------------------------------------------- virtual memory

    def address_space(self, base: int | None = None, *, vcpu: int | None = None, **tables: int) -> AddressSpace:
        """The virtual memory that page tables map: those of a vCPU at this moment, or those at ``base``.

        ``tables`` are members of :class:`~libmicrovmi_py.paging.PageTables`. Without a vCPU ``base`` is CR3, ``paging``
        by default that of four levels; of AArch64 it is TTBR0_EL1, with ``upper_base`` and ``control``. A ``vcpu``
        tells all by its registers, but for bases that are named: of another process in the same mode.

        Raises ``InvalidArgumentError`` for what no processor has, ``NotSupportedError`` without these registers.
        """
        self._check_open()
        with StandardStreamsHeld():
            from libmicrovmi_py.machine import spaces  # of whom reads physical memory only, nobody needs it
        return spaces.AddressSpace(self._physical, spaces.page_tables(self, base, vcpu, **tables))

    def flush_translations(self) -> None:
        """Forget translations that are kept while the machine is paused: after others wrote to its page tables."""
        self._check_open()
        self._physical.flush_translations()

    # -------------------------------------------------------------------------------------------- about the machine

    def memory_map(self) -> Sequence[MemoryRange]:
        """The ranges that exist, in ascending order; a driver that knows none has all RAM in one.

        Pages that were kept of the machine while it is paused are read anew afterwards. Raises ``IoError`` for ranges
        that cannot be a machine's.
        """
        self._check_open()
        with one_session(self.driver):
            if (run := self._run) is not None:
                run.refresh()
            return memory_map(self.driver)

    # ---------------------------------------------------------------------------------------------------- run state

    def pause(self) -> None:
        """Stop all vCPUs. If they ran before, they run again at :meth:`close` or at the process's end at the latest,
        if the machine then still stands by this pause.

        Raises ``DriverUnavailableError`` for a machine that cannot be stopped at present, as somebody is saving or
        migrating it.
        """
        run = self._able(self._run, "pause the machine")
        with self._books.touched():
            run.pause()

    def resume(self) -> None:
        """Let all vCPUs run, whoever stopped them.

        Raises ``DriverUnavailableError`` where that would do harm: while somebody is saving or migrating the machine,
        or has it in a debugger.
        """
        run = self._able(self._run, "resume the machine")
        with self._books.touched():
            run.resume()

    # ---------------------------------------------------------------------------------------------------- registers

    def vcpu_count(self) -> int:
        """The number of vCPUs."""
        return self._capable(SupportsVcpus, "tell the number of vCPUs").vcpu_count()

    def read_registers(self, vcpu: int = 0) -> Registers:
        """The registers of one vCPU, counted from 0, in the struct that does not grow: what is not known is 0.

        They belong together only while the machine is paused. Of a QEMU that runs it has what can be had without
        stopping it for a moment.
        """
        with StandardStreamsHeld():
            from libmicrovmi_py.machine import registers as calls  # of whom reads memory only, nobody needs it
        return calls.read_registers(self._capable(SupportsVcpuStates, "read registers"), vcpu)

    def read_state(self, vcpu: int = 0, *, unstopped: bool = False) -> VcpuState:
        """Every register of one vCPU that is known, by name. They belong together only while the machine is paused.

        ``unstopped``: what can be had without stopping a machine that runs is enough, the registers of paging among it.
        Raises ``NotSupportedError`` for a vCPU of which nothing is known.
        """
        with StandardStreamsHeld():
            from libmicrovmi_py.machine import registers as calls  # of whom reads memory only, nobody needs it
        return calls.read_state(self._capable(SupportsVcpuStates, "read registers"), vcpu, unstopped=unstopped)

    def read_states(self) -> list[VcpuState]:
        """Those of all vCPUs, in one go; one of which nothing is known is empty."""
        return self._capable(SupportsVcpuStates, "read registers").read_states(None)

    def write_registers(self, registers: Registers, vcpu: int = 0) -> None:
        """Make ``registers`` those of a vCPU, which has to be stopped.

        Read them first and change what is to be changed: what the hypervisor does not let one change stays as it is.
        """
        with StandardStreamsHeld():
            from libmicrovmi_py.machine import registers as calls  # of whom reads memory only, nobody needs it
        calls.write_registers(self._capable(SupportsStateWrites, "write registers"), registers, vcpu)

    def write_state(self, values: Mapping[str, int], vcpu: int = 0) -> None:
        """Write the registers that are in ``values``, a ``VcpuState`` or another mapping, to a vCPU that is stopped.

        Raises, before anything is written, ``InvalidArgumentError`` for a name that is no register's and a value that
        does not fit, ``NotSupportedError`` with the names of those that the hypervisor does not let one write.
        """
        with StandardStreamsHeld():
            from libmicrovmi_py.machine import registers as calls  # of whom reads memory only, nobody needs it
        calls.write_state(self._capable(SupportsStateWrites, "write registers"), values, vcpu)

    # ------------------------------------------------------------------------------------------------------- events

    def get_page_access(self, address: int) -> PageAccess:
        """How the guest may access the page that holds a guest-physical address."""
        return self._able(self._events, "tell page accesses").page_access(address >> PAGE_SHIFT)

    def set_page_access(self, address: int, access: PageAccess) -> None:
        """Allow the guest ``access`` to the page that holds an address, and nothing else; undone by :meth:`close`."""
        events = self._able(self._events, "change page accesses")
        with self._books.touched():
            events.set_page_access(address >> PAGE_SHIFT, access)

    def toggle_intercept(self, intercept: Intercept, enabled: bool = True, *, vcpu: int = ALL_VCPUS) -> None:
        """Stop vCPUs (one, or all) at what ``intercept`` names, or do so no more.

        Raises ``InvalidArgumentError`` for what no machine has, ``NotSupportedError`` for what this one cannot.
        """
        events = self._able(self._events, "intercept events")
        with self._books.touched():
            events.toggle(intercept, enabled, vcpu)

    def listen(self, timeout: float) -> Event | None:
        """Wait for the next event, ``timeout`` seconds at the most; ``None`` if there was none.

        Its vCPU is stopped until :meth:`reply_event`. A :meth:`stop_listening` ends the wait with
        ``InvalidContextError``.
        """
        return self._able(self._events, "listen to events").listen(timeout)

    def reply_event(self, event: Event | int, reply: Reply | None = None) -> None:
        """Answer an event (or the one of that id), by default with CONTINUE, and let its vCPU go on.

        Raises ``InvalidArgumentError`` for one that is not open any more, ``NotSupportedError`` for an answer that its
        kind or the hypervisor does not have; it then stays open.
        """
        events = self._able(self._events, "answer events")
        if reply is not None and reply.registers is not None:
            check_architecture(reply.registers, self.driver.architecture)
        events.reply(event if isinstance(event, int) else event.id, reply or Reply())

    def stop_listening(self) -> None:
        """End the waits of :meth:`listen` that other threads are in, and all later ones, before :meth:`close`."""
        if self._events is not None:
            self._events.stop_listening()

    # ------------------------------------------------------------------------------------------------------ the end

    def close(self) -> None:
        """Undo intercepts and a pause of this object, and release everything. Closing again does nothing.

        Raises the ``MicrovmiError`` of what could not be undone, after everything was released.
        """
        if self._run is not None:
            self._run.check_not_kept()
        with self._closing:
            if self._closed:
                return
            self._closed = self._physical.closed = True
            try:
                self._books.close()
            finally:
                for stream in (self.memory, self.padded_memory, *(ref() for ref in self._streams)):
                    if stream is not None:
                        stream.close()
                self.driver.close()
                self._physical.follow(None)

    def __enter__(self) -> Microvmi:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise was_closed()

    def _able(self, part: _Part | None, action: str) -> _Part:
        """A part that there is only where the driver has what it takes."""
        self._check_open()
        if part is None:
            raise NotSupportedError(f"the {self.driver.name} driver cannot {action}{self._remedy()}")
        return part

    def _remedy(self) -> str:
        return f": {self.driver.remedy}" if self.driver.remedy else ""

    def _capable(self, capability: type[_Part], action: str) -> _Part:
        able = self.driver if isinstance(self.driver, capability) and ABILITIES[capability] in self._can else None
        return self._able(able, action)

    def __repr__(self) -> str:
        return f"<Microvmi {self.driver.name}, {'closed' if self._closed else hex(self.driver.max_addr)}>"
