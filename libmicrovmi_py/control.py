# SPDX-License-Identifier: Apache-2.0
"""Controlling an open machine: run state, registers, page accesses, events, and leaving it as it was found."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from libmicrovmi_py.drivers.base import (
    Driver,
    SupportsEvents,
    SupportsPageAccess,
    SupportsPause,
    SupportsRegisters,
    SupportsRegisterWrites,
    SupportsVcpus,
)
from libmicrovmi_py.errors import InvalidArgumentError, InvalidContextError, MicrovmiError, NotSupportedError, logger
from libmicrovmi_py.events import ALL_VCPUS, Event, EventKind, Intercept, PageAccess, Reply
from libmicrovmi_py.memory import PhysicalMemory
from libmicrovmi_py.model import PAGE_SHIFT, Registers

_log = logger(__name__)

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
        self._run_lock = threading.Lock()
        self._closed = False
        self._unwanted = False
        self._unanswered: dict[int, Event] = {}
        self._answering = threading.Lock()
        self._cache_size = cache

    # ---------------------------------------------------------------------------------------------------- run state

    def pause(self) -> None:
        """Stop all vCPUs. If they ran before, they run again at :meth:`close` or at the process's end at the latest."""
        driver = self._capable(SupportsPause, "pause the machine")
        with self._run_lock:
            if driver.pause():
                _paused[id(self)] = (self, os.getpid())
                self._keep_pages(self._cache_size)

    def resume(self) -> None:
        """Let all vCPUs run, whoever stopped them."""
        driver = self._capable(SupportsPause, "resume the machine")
        with self._run_lock:
            self._keep_pages(0)
            driver.resume()
            _paused.pop(id(self), None)

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
        _armed[id(self)] = (self, os.getpid())
        driver.set_page_access(address >> PAGE_SHIFT, access)

    def toggle_intercept(self, intercept: Intercept, enabled: bool = True, *, vcpu: int = ALL_VCPUS) -> None:
        """Stop vCPUs (one, or all) at what ``intercept`` names, or do so no more."""
        driver = self._capable(SupportsEvents, "intercept events")
        if intercept.address and intercept.kind is not EventKind.BREAKPOINT:
            raise InvalidArgumentError(f"an intercept of {intercept.kind.name} has no address")
        _armed[id(self)] = (self, os.getpid())
        driver.toggle_intercept(vcpu, intercept, enabled)

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
        try:
            self._unanswered.clear()
            _, pid = _armed.pop(id(self), (None, 0))
            if pid == os.getpid() and isinstance(self.driver, SupportsEvents):
                self.driver.release_events()
        finally:
            _, pid = _paused.pop(id(self), (None, 0))
            if pid == os.getpid() and isinstance(self.driver, SupportsPause):
                self._keep_pages(0)
                self.driver.resume()

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidContextError("the machine is closed")

    def _capable(self, capability: type[_Capability], action: str) -> _Capability:
        self._check_open()
        if not isinstance(self.driver, capability):
            raise NotSupportedError(f"the {self.driver.name} driver cannot {action}")
        return self.driver


_paused: dict[int, tuple[Control, int]] = {}
"""Machines that were running when their object paused them, with the process that did; kept alive until resumed."""

_armed: dict[int, tuple[Control, int]] = {}
"""Machines with intercepts or changed page accesses, likewise."""


def settle_all() -> None:
    """Undo what this process did to machines that are still open; for the end of the process."""
    for machine, _ in [*_armed.values(), *_paused.values()]:
        try:
            machine._settle()
        except MicrovmiError as err:
            _log.error("not undone: %s", err)


atexit.register(settle_all)
