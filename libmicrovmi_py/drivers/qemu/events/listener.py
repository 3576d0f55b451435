# SPDX-License-Identifier: Apache-2.0
"""Events of one machine: what is placed, what is told of a stop, and when the machine goes on.

All vCPUs stop at each stop, and QEMU tells of one at a time. What another vCPU came to in the same moment it comes to
again, as a breakpoint stops it before the instruction.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.drivers.control import RUNS, STOPPED, Phase, RunState
from libmicrovmi_py.drivers.qemu.events.healing import taken_out
from libmicrovmi_py.drivers.qemu.events.opening import close_stub, open_stub
from libmicrovmi_py.drivers.qemu.events.openstub import IDLE, OpenStub
from libmicrovmi_py.drivers.qemu.events.stopped import Stopped
from libmicrovmi_py.drivers.qemu.events.turns import Turns
from libmicrovmi_py.drivers.qemu.events.watched import Watched
from libmicrovmi_py.drivers.qemu.vcpus import Vcpus
from libmicrovmi_py.errors import DriverUnavailableError
from libmicrovmi_py.events import Intercept, ReplyAction, Stop
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.qmp import QmpClient

if TYPE_CHECKING:
    from libmicrovmi_py.drivers.guestmemory import GuestMemory

_TIMEOUT = 5.0
"""Seconds that the stub may take for an answer."""


class Listener:
    """What is intercepted is placed while the machine stands: it is stopped for that."""

    def __init__(
        self,
        client: Callable[[], AbstractContextManager[QmpClient]],
        debuggers: Callable[[], Collection[str]],
        memory: GuestMemory | None,
    ) -> None:
        self._client = client
        self._debuggers = debuggers
        self._memory = memory
        self._turns = Turns()
        self._open: OpenStub | None = None
        self._loss: DriverUnavailableError | None = None  # how the stub was lost
        self._untold = False  # that, to who polls
        self._left = False  # what was placed in it may still be there
        self._held = False  # it was paused by our user while it stood at a stop
        self._depth = 0
        self._fresh: deque[Stop] = deque()
        self._waits = False  # who polls, for what another thread may hear

    # ------------------------------------------------------------------------------------------ what is intercepted

    def arm(self, intercept: Intercept, vcpus: frozenset[int]) -> None:
        """As ``SupportsEvents.arm``."""
        with self.quiet():
            if self._open is None and vcpus:
                self._begin()
            if self._open is None:
                self._loss, self._untold = None, False  # what was lost is not wanted any more
                return
            with self._losing():
                self._open.armed.arm(intercept, vcpus)
                self._open.place()
            if self._untold and vcpus:
                self._tell_loss()

    def _begin(self) -> None:
        with self._client() as client:
            self._take_out(client)
            indexes = Vcpus.of(client).indexes
            watched = Watched()
            opened = open_stub(client, self._debuggers(), _TIMEOUT, watched)
            try:
                self._open = OpenStub(opened, watched, indexes, self._client, self._memory)
            except BaseException:
                close_stub(client, opened.link, watched, let_run=opened.ran)
                raise

    def end(self) -> bool:
        """As ``SupportsEvents.end_events``."""
        with self._client() as client, self._turns:
            with self._losing():
                self._end(client)
            self._take_out(client)
        return True

    def _take_out(self, client: QmpClient) -> None:
        """Remove what was placed in a stub that was lost, if nobody has it any more: QEMU keeps that otherwise."""
        self._left = self._left and not taken_out(client, self._debuggers())

    def _end(self, client: QmpClient) -> None:
        """The stub is ended whatever happens to what is done before; a machine that runs has nothing placed."""
        now, let_run = self._open, not self._held
        if now is None:
            return
        try:
            if now.run.runs:
                now.others = not now.run.halt().ours
            now.run.places.follow(())
            if not let_run:
                now.run.calm()
            elif not now.others:
                now.others = not now.run.drain()
        except BaseException:
            if not now.link.is_lost:  # else it is not ours any more
                self._leave(client, now, let_run and not now.others)
            raise
        self._leave(client, now, let_run and not now.others)

    def _leave(self, client: QmpClient, now: OpenStub, let_run: bool) -> None:
        self._open = None
        self._fresh.clear()
        close_stub(client, now.link, now.watched, let_run=let_run)

    @contextmanager
    def _losing(self) -> Iterator[None]:
        """A block in which the stub may turn out to be somebody else's, or QEMU to have ended: nothing is placed and
        nothing open any more then. Who polls is told, once."""
        try:
            yield
        except DriverUnavailableError as err:
            now = self._open
            if now is None or not now.link.is_lost:
                raise
            self._open = None
            self._fresh.clear()
            self._loss, self._untold, self._left = err.with_traceback(None), True, True
            now.link.close()
            now.watched.done()

    def _tell_loss(self) -> None:
        self._untold = False
        with self._client():  # which is what tells that QEMU ended
            assert self._loss is not None
            raise self._loss

    def forget(self) -> None:
        """The driver is closed: what is still there is that of a QEMU that ended, or that nobody could undo."""
        with self._turns:
            now, self._open = self._open, None
            if now is not None:
                now.link.close()
                now.watched.done()

    # ------------------------------------------------------------------------------------------------------ run state

    def seen(self, state: RunState) -> RunState:
        """The run state, of which a stop that is open is no part."""
        with self._turns:
            now = self._open
            if state.phase is Phase.RUNS and now is None:
                self._held = False  # somebody let it run
            if state.phase is not Phase.HALTED:
                return state
            with self._losing():
                self._collect()  # the stop that it stands at may not have been heard of yet
            now = self._open
            if self._held:
                return STOPPED
            return RUNS if now and (now.answers or now.run.runs) else state

    def hold(self) -> None:
        """The machine was paused, and stands: it does not go on when an event is answered."""
        with self._turns:
            with self._losing():
                self._collect()
            if self._open is not None:
                self._held, self._open.others = True, False
                self._open.watched.ran(False)
                self._open.run.stand()

    def release(self) -> bool:
        """The machine is let run, whoever stopped it: it goes on now, or when its event is answered.

        ``False``: nothing is listened to, and it is to be let run otherwise.
        """
        with self._turns:
            self._held = False
            with self._losing():
                self._collect()
                if self._open is not None:
                    self._open.watched.ran(True)
                    self._open.others = False
                    self._go_on()
            return self._open is not None

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """As ``SupportsEvents.quiet``. The last intercept that ends within it ends the stub."""
        with self._client() as client, self._turns:  # in this order, as who asks the monitor asks this object as well
            with self._losing():
                self._collect()
                now = self._open
                if now and (now.run.runs or now.was_let_run(client)):
                    if now.run.runs:
                        self._hear(now, now.run.halt())
                    self._hear_later(now)
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                now = self._open
                with self._losing():
                    if now and not (self._depth or now.armed.active or now.answers):
                        self._end(client)
                    self._go_on()

    def _go_on(self) -> None:
        """Let the machine run if nobody wants it to stand."""
        now = self._open
        while now and not (now.run.runs or now.answers or self._depth or now.others or self._held):
            for mechanism in now.armed.active:
                mechanism.before_going()
            now.place()
            now.answers.lead_over()
            if not self._hear_later(now):
                now.run.go()

    # ---------------------------------------------------------------------------------------------------------- stops

    def poll(self, timeout: float) -> Stop | None:
        """As ``SupportsEvents.poll``."""
        deadline = Deadline(timeout)
        while True:
            with self._turns.last():
                now, left = self._open, min(deadline.remaining, IDLE)
                due = now is not None and not self._fresh and now.is_due
                with self._losing():
                    self._collect(0.0 if self._fresh or due else left)
                if self._fresh:
                    return self._fresh.popleft()
                lost, now, left = self._untold and self._loss, self._open, min(deadline.remaining, IDLE)
                self._waits = bool(left and now and not (due or now.run.runs))
            if lost:
                self._tell_loss()
            elif due:
                self._look_around()
            elif not left:
                return None
            elif self._waits or now is None:
                self._wait(now, left)

    def _look_around(self) -> None:
        with self._client() as client, self._turns:  # in this order
            if self._open is not None and self._open.idle(client):
                with self.quiet():
                    pass  # it is stopped, what is wanted is placed, and it goes on in a way that QEMU tells of

    def _wait(self, now: OpenStub | None, seconds: float) -> None:
        if now is None:
            time.sleep(seconds)
        else:
            now.link.wait(seconds)
            self._waits = False

    def _collect(self, seconds: float = 0.0) -> None:
        """Take in the stop that has come, if one has; a machine that runs gets so long for it."""
        now = self._open
        if now is None:
            return
        stopped = self._turns.wait(partial(now.run.look, expected=now.others), seconds, now.link.wake)
        if stopped is None and now.run.is_overdue:
            stopped = now.run.halt()
        if stopped:
            self._hear(now, stopped)
        elif not now.run.runs:
            self._hear_later(now)
        if stopped and stopped.ours:
            self._go_on()  # if it was nothing of ours, any more

    def _hear(self, now: OpenStub, stopped: Stopped) -> None:
        """A stop of the machine; if it is one of ours, it is told next."""
        now.others = not stopped.ours
        if now.others:
            now.watched.ran(False)
        self._tell(now, stopped)

    def _hear_later(self, now: OpenStub) -> bool:
        """What came while something else was done; whether something had."""
        later, now.run.later[:] = list(now.run.later), ()
        for stopped in later:
            now.others = now.others or not stopped.ours
            self._tell(now, stopped)
        if now.others:
            now.watched.ran(False)
        return bool(later)

    def _tell(self, now: OpenStub, stopped: Stopped) -> None:
        told = now.answers.hear(stopped, now.armed.active)
        now.place()
        self._fresh += told
        if told and self._waits:
            now.link.wake()

    def resume(self, stop: Stop, action: ReplyAction, registers: Mapping[str, int] | None) -> None:
        """As ``SupportsEvents.resume``."""
        with self._turns:
            with self._losing():
                if self._open is not None:
                    self._open.answers.answer(stop, action, registers)
                    self._go_on()
                    return
            loss = self._loss
        if loss is not None:
            with self._client():  # which is what tells that QEMU ended
                raise loss

    def registers(self, vcpu: int) -> Mapping[str, int] | None:
        """Those of a vCPU that stands at an event; ``None``: none is open."""
        with self._turns:
            now = self._open
            return now.run.registers(vcpu) if now and now.answers else None

    def write(self, vcpu: int, values: Mapping[str, int]) -> bool:
        """Write registers of a vCPU of a machine that stands; ``False``: nothing is listened to.

        Raises ``DriverUnavailableError`` for a machine that runs, ``NotSupportedError`` for what the vCPU does not
        take: all are as they were then.
        """
        with self._turns, self._losing():
            self._collect()
            if (now := self._open) is None:
                return False
            if now.run.runs:
                raise DriverUnavailableError("registers are written while the machine is paused: pause it")
            now.run.write_exactly(vcpu, values)
            return True
        return False
