# SPDX-License-Identifier: Apache-2.0
"""Which vCPUs stand, and letting them go on: stops that are told, and those of a pause.

Everything that makes a vCPU stand is a message that waits for its answer. libkvmi queues them as they come, whoever
reads from the connection; here they are told apart. A vCPU that stands at something else sends the message of a pause
behind that, so that a resume cannot wait for it: it is answered when it comes.
"""

from __future__ import annotations

import collections
import errno
import math
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress

from libmicrovmi_py.arch.state import VcpuState
from libmicrovmi_py.arch.x86.registers import GENERAL
from libmicrovmi_py.declare import Any
from libmicrovmi_py.drivers.kvm import abi, vcpus
from libmicrovmi_py.drivers.kvm.library import Domain
from libmicrovmi_py.drivers.kvm.messages import Message, answer, go_on, message_of, stop_of
from libmicrovmi_py.errors import (
    IoError,
    MicrovmiError,
    NotSupportedError,
    TimeoutExpiredError,
)
from libmicrovmi_py.events import ReplyAction, Stop
from libmicrovmi_py.model import Architecture
from libmicrovmi_py.transport.deadline import Deadline

_SLICE = 0.05
"""Seconds after which a wait looks at what other threads have read from the connection."""

_FAILED = 0.5
"""Seconds for which vCPUs are awaited that may have stopped for a pause that failed."""

_LARGEST_COUNT = 0xFFFE
"""vCPUs; above, a hypervisor does not tell the truth."""


class Stops:
    """What the vCPUs of a machine stand at."""

    def __init__(self, domain: Domain, timeout: float) -> None:
        """``timeout``: seconds that a vCPU may take to stop or to go on."""
        self._domain = domain
        self._timeout = timeout
        self._run = threading.Lock()
        self._lock = threading.RLock()
        self._paused = False
        self._held: list[Message] = []  # those of a pause, which wait for the resume
        self._owed: collections.Counter[int] = collections.Counter()  # by vCPU: those that were not answered yet
        self._fresh: collections.deque[Stop] = collections.deque()  # not told yet
        self._stands: dict[int, Message] = {}  # by vCPU: what it stands at, told or not, but for a pause
        self._written: dict[int, Mapping[str, int]] = {}  # by vCPU: what it loads when it goes on

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
        """Whether :meth:`stop` holds them."""
        return self._paused

    def stop(self) -> None:
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

    def run(self) -> None:
        """Answer the messages of the pause, one a vCPU, as they come. Raises ``TimeoutExpiredError``."""
        with self._run:
            if self._paused:
                self._go_on()
                self._await_running(lambda: not self._late())

    def _go_on(self) -> None:
        with self._lock:
            self._paused = False
            held, self._held = self._held, []
            for message in held:
                self._release(message)

    def _let_go_of(self, count: int) -> None:
        """Answer what comes of a pause that failed: some of the vCPUs may have stopped for it."""
        deadline = Deadline(_FAILED)
        with suppress(MicrovmiError):
            for _ in range(count):
                self._look(min(deadline.remaining, _SLICE))

    def _release(self, message: Message) -> None:
        """Answer a message of a pause, or one that nobody asked for."""
        self._written.pop(message.vcpu, None)
        if message.number == abi.EVENT_PAUSE_VCPU and self._owed[message.vcpu]:
            self._owed[message.vcpu] -= 1
        self._send(message, go_on(message))

    def _late(self) -> set[int]:
        """The vCPUs whose event of a pause is due."""
        with self._lock:
            return {vcpu for vcpu, owed in self._owed.items() if owed} - self._stands.keys()

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

    def read(self, vcpu: int) -> VcpuState:
        """The registers of a vCPU; those that were written count, though KVM still keeps them back."""
        values = vcpus.read(self._domain, vcpu)
        with self._lock:
            values.update(self._written.get(vcpu, {}))
        return VcpuState(Architecture.X86, values)

    def write(self, vcpu: int, values: Mapping[str, int]) -> None:
        """Write general registers of a vCPU that is paused or stopped by an event."""
        if self._paused:
            self._await(lambda: self._is_stopped(vcpu), "stopped after the pause")
        with self._lock:
            if not self._is_stopped(vcpu):
                raise NotSupportedError("KVMi writes the registers of a stopped vCPU only: pause the machine first")
            now = self.read(vcpu)
            wanted = {name: values.get(name, now[name]) for name in GENERAL}
            vcpus.write(self._domain, vcpu, wanted)
            self._written[vcpu] = wanted

    def _is_stopped(self, vcpu: int) -> bool:
        with self._lock:
            return vcpu in self._stands or any(message.vcpu == vcpu for message in self._held)

    # -------------------------------------------------------------------------------------------------------- stops

    def poll(self, timeout: float) -> Stop | None:
        """As ``SupportsEvents.poll``."""
        deadline = Deadline(timeout)
        self._collect()
        while (stop := self._take()) is None and not deadline.expired:
            self._look(min(deadline.remaining, _SLICE))
        if stop is None:
            self._look(0.0)
            stop = self._take()
        return stop

    def _take(self) -> Stop | None:
        with self._lock:
            return self._fresh.popleft() if self._fresh else None

    def resume(self, stop: Stop, action: ReplyAction, registers: Mapping[str, int] | None) -> None:
        """As ``SupportsEvents.resume``; one whose vCPU has gone on since needs nothing."""
        with self._lock:
            message = self._stands.get(stop.vcpu)
            if message is None or message != stop.token:
                return
            if registers is not None:
                vcpus.write(self._domain, stop.vcpu, registers)
            self._written.pop(stop.vcpu, None)
            self._send(message, answer(stop, action))
            del self._stands[stop.vcpu]
        if not self._paused and self._owed[stop.vcpu]:
            self._await_running(lambda: stop.vcpu not in self._late())

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
        message, stop = message_of(event), stop_of(event)
        if stop is not None:
            self._stands[stop.vcpu] = message
            self._fresh.append(stop)
            if len(self._fresh) > _LARGEST_COUNT:
                raise self._domain.lost("the hypervisor sent more events than there can be vCPUs")
        elif message.number == abi.EVENT_PAUSE_VCPU and self._paused:
            self._held.append(message)
        elif message.number != abi.EVENT_UNHOOK:
            self._release(message)

    def _send(self, message: Message, text: bytes) -> None:
        self._domain.call("kvmi_reply_event", message.seq, text, len(text))
