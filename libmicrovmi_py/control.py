# SPDX-License-Identifier: Apache-2.0
"""Controlling an open machine: run state, registers, page accesses, events, and leaving it as it was found."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from libmicrovmi_py import release
from libmicrovmi_py.drivers.base import (
    Driver,
    SupportsEvents,
    SupportsPageAccess,
    SupportsPause,
    SupportsRegisters,
    SupportsRegisterWrites,
    SupportsVcpus,
)
from libmicrovmi_py.errors import InvalidArgumentError, InvalidContextError, NotSupportedError
from libmicrovmi_py.events import ALL_VCPUS, Event, EventKind, Intercept, PageAccess, Reply
from libmicrovmi_py.memory import PhysicalMemory
from libmicrovmi_py.model import PAGE_SHIFT, Registers
from libmicrovmi_py.runstate import RunBooks

_LOOK = 0.1
"""Seconds after which a wait for events looks whether it is still wanted."""

_Capability = TypeVar("_Capability")


class Control:
    """What :class:`~libmicrovmi_py.microvmi.Microvmi` does besides memory."""

    driver: Driver
    table_changed: Callable[[], None] = staticmethod(lambda: None)
    """To be called when what C may read has changed; nobody reads without asking at first."""

    def _take_control(self, driver: Driver, physical: PhysicalMemory, cache: int) -> None:
        self.driver = driver
        self._physical = physical
        self._run = RunBooks(driver, self._keep, lambda: self._closed) if isinstance(driver, SupportsPause) else None
        self._closing = threading.Lock()
        self._closed = False
        self._armed = False
        self._unwanted = False
        self._unanswered: dict[int, Event] = {}
        self._answering = threading.Lock()
        self._cache_size = cache

    # ---------------------------------------------------------------------------------------------------- run state

    def pause(self) -> None:
        """Stop all vCPUs. If they ran before, they run again at :meth:`close` or at the process's end at the latest,
        if the machine then still stands by this pause.

        Raises ``DriverUnavailableError`` for a machine that cannot be stopped at present, as somebody is saving or
        migrating it.
        """
        books = self._books("pause the machine")
        with self._touched():
            books.pause()

    def resume(self) -> None:
        """Let all vCPUs run, whoever stopped them.

        Raises ``DriverUnavailableError`` where that would do harm: while somebody is saving or migrating the machine,
        or has it in a debugger.
        """
        books = self._books("resume the machine")
        with self._touched():
            books.resume()

    def _books(self, action: str) -> RunBooks:
        self._capable(SupportsPause, action)
        run = self._run
        if run is None:
            raise InvalidContextError("the machine is closed")
        return run

    def _keep(self, wanted: bool) -> None:
        """Pages of a machine that never changes are kept all the time."""
        if not self.driver.static:
            self._keep_pages(self._cache_size if wanted else 0)

    def _keep_pages(self, size: int) -> None:
        """C has to know before the machine runs again: what it reads from then on is not what it has kept."""
        self._physical.keep_pages(size)
        self.table_changed()

    # ---------------------------------------------------------------------------------------------------- registers

    def vcpu_count(self) -> int:
        """The number of vCPUs."""
        return self._capable(SupportsVcpus, "tell the number of vCPUs").vcpu_count()

    def read_registers(self, vcpu: int = 0) -> Registers:
        """The registers of one vCPU, counted from 0; they belong together only while the machine is paused."""
        return self._capable(SupportsRegisters, "read registers").read_registers(vcpu)

    def write_registers(self, registers: Registers, vcpu: int = 0) -> None:
        """Make ``registers`` those of a vCPU, which has to be stopped.

        Read them first and change what is to be changed: what the hypervisor does not let one change stays as it is.
        """
        self._capable(SupportsRegisterWrites, "write registers").write_registers(vcpu, registers)

    # ------------------------------------------------------------------------------------------------------- events

    def get_page_access(self, address: int) -> PageAccess:
        """How the guest may access the page that holds a guest-physical address."""
        return self._capable(SupportsPageAccess, "tell page accesses").get_page_access(address >> PAGE_SHIFT)

    def set_page_access(self, address: int, access: PageAccess) -> None:
        """Allow the guest ``access`` to the page that holds an address, and nothing else; undone by :meth:`close`."""
        driver = self._capable(SupportsPageAccess, "change page accesses")
        self._arm()
        driver.set_page_access(address >> PAGE_SHIFT, access)

    def toggle_intercept(self, intercept: Intercept, enabled: bool = True, *, vcpu: int = ALL_VCPUS) -> None:
        """Stop vCPUs (one, or all) at what ``intercept`` names, or do so no more."""
        driver = self._capable(SupportsEvents, "intercept events")
        if intercept.address and intercept.kind is not EventKind.BREAKPOINT:
            raise InvalidArgumentError(f"an intercept of {intercept.kind.name} has no address")
        self._arm()
        driver.toggle_intercept(vcpu, intercept, enabled)

    def _arm(self) -> None:
        """In the books before it is done."""
        release.add(self)
        self._armed = True

    def listen(self, timeout: float) -> Event | None:
        """Wait for the next event, ``timeout`` seconds at the most; ``None`` if there was none.

        Its vCPU is stopped until :meth:`reply_event`. A :meth:`stop_listening` ends the wait with
        ``InvalidContextError``.
        """
        driver = self._capable(SupportsEvents, "listen to events")
        end = time.monotonic() + timeout
        while True:
            left = end - time.monotonic()
            event = driver.listen(min(max(left, 0.0), _LOOK))
            if event is not None:
                self._unanswered[event.id] = event
            if event is not None or left <= 0.0:
                return event
            if self._closed or self._unwanted:
                raise InvalidContextError("the machine was closed while it was listened to")

    def reply_event(self, event: Event | int, reply: Reply | None = None) -> None:
        """Answer an event (or the one of that id), by default with CONTINUE, and let its vCPU go on.

        Raises ``InvalidArgumentError`` for one that is not open any more, ``NotSupportedError`` for an answer that its
        kind or the hypervisor does not have; it then stays open.
        """
        driver = self._capable(SupportsEvents, "answer events")
        number = event if isinstance(event, int) else event.id
        with self._answering:
            known = self._unanswered.get(number)
            if known is None:
                raise InvalidArgumentError(f"event {number} is not open: it was answered, or never happened")
            driver.reply_event(known, reply or Reply())
            del self._unanswered[number]

    def stop_listening(self) -> None:
        """End the waits of :meth:`listen` that other threads are in, and all later ones, before :meth:`close`."""
        self._unwanted = True

    # -------------------------------------------------------------------------------------------------- at the end

    def _settle(self) -> None:
        """Leave the machine as if nobody had ever looked: no intercept, nothing unanswered, running if it ran."""
        self._undo(RunBooks.settle)

    def _leave(self) -> None:
        if self._run is not None:
            self._run.leave()

    def _undo(self, settle: Callable[[RunBooks], None]) -> None:
        """Each step is done whatever becomes of the one before. A child undoes nothing of what its parent did."""
        if not release.is_ours(self):
            release.discard(self)
            return
        with ExitStack() as steps:  # the last one first
            steps.callback(self._discard_if_settled)
            if self._run is not None:
                steps.callback(settle, self._run)
            steps.callback(self._release_events)

    def _release_events(self) -> None:
        self._unanswered.clear()
        if self._armed and isinstance(self.driver, SupportsEvents):
            self.driver.release_events()
        self._armed = False

    def _discard_if_settled(self) -> None:
        run = self._run
        if not self._armed and not (run is not None and run.owes):
            release.discard(self)

    @contextmanager
    def _touched(self) -> Iterator[None]:
        """While something is done to the machine, and afterwards if something is to be undone, others know of it."""
        release.add(self)
        try:
            yield
        finally:
            self._discard_if_settled()

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidContextError("the machine is closed")

    def _capable(self, capability: type[_Capability], action: str) -> _Capability:
        self._check_open()
        if not isinstance(self.driver, capability):
            raise NotSupportedError(f"the {self.driver.name} driver cannot {action}")
        return self.driver
