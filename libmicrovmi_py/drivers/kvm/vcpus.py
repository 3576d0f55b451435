# SPDX-License-Identifier: Apache-2.0
"""Which vCPUs are stopped, by whom, and letting them go on: events for the user, and those of a pause.

Everything that stops a vCPU is an event that waits for its answer. libkvmi queues them as they come, whoever reads from
the connection; here they are told apart. A vCPU that is stopped by an event sends the one of a pause behind it, so that
a resume cannot wait for that: it is answered when it comes.
"""

from __future__ import annotations

import collections
import errno
import itertools
import math
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from libmicrovmi_py.drivers.kvm import abi, registers
from libmicrovmi_py.drivers.kvm.domain import Domain
from libmicrovmi_py.drivers.kvm.messages import Stop, answer, go_on, read_event, stop_of
from libmicrovmi_py.errors import (
    InvalidArgumentError,
    IoError,
    MicrovmiError,
    NotSupportedError,
    TimeoutExpiredError,
    VmGoneError,
)
from libmicrovmi_py.events import Event, Reply
from libmicrovmi_py.model import X86Registers
from libmicrovmi_py.transport.deadline import Deadline

_SLICE = 0.05
"""Seconds after which a wait looks at what other threads have read from the connection."""

_FAILED = 0.5
"""Seconds for which vCPUs are awaited that may have stopped for a pause that failed."""

_LARGEST_COUNT = 0xFFFE
"""vCPUs; above, a hypervisor does not tell the truth."""


class Vcpus:
    """The vCPUs of a machine."""

    def __init__(self, domain: Domain, timeout: float) -> None:
        """``timeout``: seconds that a vCPU may take to stop or to go on."""
        self._domain = domain
        self._timeout = timeout
        self._run = threading.Lock()
        self._lock = threading.RLock()
        self._paused = False
        self._held: list[Stop] = []  # events of a pause that wait for the resume
        self._owed: collections.Counter[int] = collections.Counter()  # by vCPU: those that were not answered yet
        self._fresh: collections.deque[tuple[Stop, Event]] = collections.deque()  # not handed out yet
        self._open: dict[int, tuple[Stop, Event]] = {}  # by our number: handed out, not answered yet
        self._written: dict[int, X86Registers] = {}  # by vCPU: what it loads when it goes on
        self._numbers = itertools.count(1)

    def count(self) -> int:
        """The number of vCPUs, as the hypervisor tells it now."""
        count = self._domain.ffi.new("unsigned int *")
        self._domain.call("kvmi_get_vcpu_count", count)
        if not 1 <= count[0] <= _LARGEST_COUNT:
            raise IoError(f"the hypervisor tells of {count[0]} vCPUs")
        return int(count[0])

    # ---------------------------------------------------------------------------------------------------- run state

    @property
    def paused(self) -> bool:
        """Whether :meth:`pause` holds them."""
        return self._paused

    def pause(self) -> None:
        """Stop all vCPUs, unless they were stopped here already."""
        with self._run:
            if self._paused:
                return
            count = self.count()
            with self._lock:
                self._paused = True
                self._owed.update(range(count))
            try:
                self._domain.call("kvmi_pause_all_vcpus", count)
            except MicrovmiError:
                self._go_on()
                self._owed.clear()
                self._let_go_of(count)
                raise

    def resume(self) -> None:
        """Answer the events of the pause, one a vCPU, as they come. Raises ``TimeoutExpiredError``."""
        with self._run:
            if self._paused:
                self._go_on()
                self._await_running(lambda: not self._late())

    def _go_on(self) -> None:
        with self._lock:
            self._paused = False
            held, self._held = self._held, []
            for stop in held:
                self._release(stop)

    def _let_go_of(self, count: int) -> None:
        """Answer what comes of a pause that failed: some of the vCPUs may have stopped for it."""
        deadline = Deadline(_FAILED)
        with suppress(MicrovmiError):
            for _ in range(count):
                self._look(min(deadline.remaining, _SLICE))

    def _release(self, stop: Stop) -> None:
        """Answer an event of a pause, or one that nobody asked for."""
        self._written.pop(stop.vcpu, None)
        if stop.number == abi.EVENT_PAUSE_VCPU and self._owed[stop.vcpu]:
            self._owed[stop.vcpu] -= 1
        self._send(stop, go_on(stop))

    def _late(self) -> set[int]:
        """The vCPUs whose event of a pause is due."""
        with self._lock:
            return {vcpu for vcpu, owed in self._owed.items() if owed} - self._stopped_by_events()

    def _stopped_by_events(self) -> set[int]:
        return {stop.vcpu for stop, _ in itertools.chain(self._fresh, self._open.values())}

    def _await_running(self, done: Callable[[], bool]) -> None:
        try:
            self._await(done, "went on")
        except TimeoutExpiredError:
            for vcpu in self._late():
                del self._owed[vcpu]
            raise

    def _await(self, done: Callable[[], bool], what: str) -> None:
        deadline = Deadline(self._timeout)
        self._collect()
        while not done():
            if deadline.expired:
                raise TimeoutExpiredError(f"not all vCPUs {what} within {self._timeout:g} s")
            self._look(min(deadline.remaining, _SLICE))

    # ---------------------------------------------------------------------------------------------------- registers

    def read_registers(self, vcpu: int) -> X86Registers:
        """The registers of a vCPU; those that were written count, though KVM still keeps them back."""
        values = registers.read(self._domain, vcpu)
        with self._lock:
            written = self._written.get(vcpu)
        for name in registers.GENERAL if written else ():
            setattr(values, name, getattr(written, name))
        return values

    def write_registers(self, vcpu: int, values: X86Registers) -> None:
        """Write the general registers of a vCPU that is paused or stopped by an event."""
        if self._paused:
            self._await(lambda: self._is_stopped(vcpu), "stopped after the pause")
        with self._lock:
            if not self._is_stopped(vcpu):
                raise NotSupportedError("KVMi writes the registers of a stopped vCPU only: pause the machine first")
            registers.write(self._domain, vcpu, values)
            self._written[vcpu] = replace(values)

    def _is_stopped(self, vcpu: int) -> bool:
        with self._lock:
            return vcpu in self._stopped_by_events() or any(stop.vcpu == vcpu for stop in self._held)

    # ------------------------------------------------------------------------------------------------------- events

    def listen(self, timeout: float) -> Event | None:
        """The next event, ``None`` if there is none within ``timeout`` seconds."""
        deadline = Deadline(timeout)
        self._collect()
        while (event := self._take()) is None and not deadline.expired:
            self._look(min(deadline.remaining, _SLICE))
        if event is None:
            self._look(0.0)
            event = self._take()
        return event

    def reply(self, event: Event, reply: Reply) -> None:
        """Answer an event that :meth:`listen` gave."""
        with self._lock:
            if event.id not in self._open:
                raise InvalidArgumentError(f"there is no event {event.id} that waits for an answer")
            text = answer(self._open[event.id][1], reply.action)
            stop, known = self._open.pop(event.id)
        try:
            if reply.registers is not None:
                registers.write(self._domain, stop.vcpu, reply.registers)
            with self._lock:
                self._written.pop(stop.vcpu, None)
                self._send(stop, text)
        except MicrovmiError:
            with self._lock:
                self._open[event.id] = (stop, known)
            raise
        if not self._paused and self._owed[stop.vcpu]:
            self._await_running(lambda: stop.vcpu not in self._late())

    def let_all_go(self) -> None:
        """Answer whatever is open or has just come with CONTINUE. Nothing to be done for a machine that ended."""
        deadline = Deadline(self._timeout)
        with suppress(VmGoneError):
            self._look(0.0)
            while self._take() is not None or self._open:
                for _, event in list(self._open.values()):
                    self.reply(event, Reply())
                if deadline.expired:
                    raise TimeoutExpiredError(f"events still come {self._timeout:g} s after they were switched off")
                self._look(0.0)

    def _take(self) -> Event | None:
        with self._lock:
            if not self._fresh:
                return None
            stop, event = self._fresh.popleft()
            self._open[event.id] = (stop, event)
            return event

    # --------------------------------------------------------------------------------------------- what libkvmi has

    def _look(self, seconds: float) -> None:
        """Wait for events, and take in what has come, by this thread's reading or another's."""
        error = self._domain.attempt("kvmi_wait_event", math.ceil(seconds * 1000))
        found = self._collect()
        if error == errno.EINVAL:
            raise self._domain.lost("the hypervisor sent an event that makes no sense")
        if error not in (0, errno.ETIMEDOUT) and not found:
            raise self._domain.failure(error, "kvmi_wait_event")

    def _collect(self) -> bool:
        """Take all events that libkvmi has; whether there were any."""
        found = False
        box = self._domain.ffi.new("struct kvmi_dom_event **")
        with self._lock:
            while self._domain.attempt("kvmi_pop_event", box) == 0:
                found = True
                try:
                    self._sort(box[0])
                finally:
                    self._domain.free(box[0])
        return found

    def _sort(self, event: Any) -> None:
        stop, word = stop_of(event), read_event(event, next(self._numbers))
        if word is not None:
            self._fresh.append((stop, word))
            if len(self._fresh) > _LARGEST_COUNT:
                raise self._domain.lost("the hypervisor sent more events than there can be vCPUs")
        elif stop.number == abi.EVENT_PAUSE_VCPU and self._paused:
            self._held.append(stop)
        elif stop.number != abi.EVENT_UNHOOK:
            self._release(stop)

    def _send(self, stop: Stop, text: bytes) -> None:
        self._domain.call("kvmi_reply_event", stop.seq, text, len(text))
