# SPDX-License-Identifier: Apache-2.0
"""Whether a machine runs, and what of that is ours: the books, once for all drivers.

An order to stop is in the books before it is sent, as one whose answer is late may have been done. A machine is let run
without being asked for only while it is still stopped by our stop.
"""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

from libmicrovmi_py.drivers.control import Phase, RunState, SupportsLateRun, SupportsPause, SupportsSessions
from libmicrovmi_py.errors import (
    CancelledError,
    DriverUnavailableError,
    MicrovmiError,
    TimeoutExpiredError,
    VmGoneError,
    logger,
    was_closed,
)
from libmicrovmi_py.transport.deadline import Deadline

_log = logger(__name__)

_NEVER = float("inf")

_PATIENCE = 60.0
"""Seconds that another thread's pause or resume may take; each has shorter limits of its own."""

_LATE = 3.0
"""Seconds for which a stop without an answer is awaited at the end, and what somebody else is in the middle of."""

_LOOK = 0.02


class _Stop(enum.Enum):
    NONE = enum.auto()
    """Nothing is owed."""
    SENT = enum.auto()
    """An order to stop was sent, and nobody knows what became of it."""
    DONE = enum.auto()
    """It stands by our stop."""


class Stand:
    """A machine that stands. ``stopped``: for this; ``seconds``: how long at the most, when it is over, else 0."""

    stopped = False
    seconds = 0.0


class RunBooks:
    """The run state of one machine, and who is to let it run.

    ``keep`` is called with whether pages that are read may be kept from now on; those that were kept go in both cases.
    Every method asks the machine and raises as the driver does.
    """

    def __init__(self, driver: SupportsPause, keep: Callable[[bool], None]) -> None:
        self._driver = driver
        self._keep = keep
        self._ended = False
        self._stop = _Stop.NONE
        self._lock = threading.Lock()
        self._keeper = 0  # the thread that is in standing()
        self._settling: list[None] = []  # one for each thread that wants to settle
        self._awaited_until = _NEVER

    @property
    def owes(self) -> bool:
        """Whether something of ours is, or may be, to be taken back."""
        return self._stop is not _Stop.NONE

    def pause(self) -> None:
        """Stop the machine unless it stands. Raises ``DriverUnavailableError`` where that would stop nothing."""
        with self._turn():
            state = self._look()
            if state.no_pause:
                raise DriverUnavailableError(state.no_pause)
            if state.phase is Phase.RUNS:
                self._order_stop()
            self._keep(self._stop is _Stop.DONE)

    def resume(self) -> None:
        """Let the machine run, whoever stopped it. Raises ``DriverUnavailableError`` where that would do harm."""
        with self._turn():
            state = self._look()
            if state.no_resume:
                raise DriverUnavailableError(state.no_resume)
            self._keep(False)
            state = self._decided(state)
            self._driver.run(whoever=True)
            if state.phase is not Phase.RUNS:
                self._stop = _Stop.NONE

    def refresh(self) -> None:
        """Forget pages that were kept, and keep more only if the machine still stands by our stop."""
        if not self.owes:
            return
        with self._turn():
            self._look()
            self._keep(self._stop is _Stop.DONE)

    def settle(self) -> None:
        """Let the machine run if, and only if, it still stands by our stop; one that is gone needs nothing.

        Raises ``TimeoutExpiredError`` while that cannot be told; it may be called again.
        """
        self._settling.append(None)
        try:
            with self._turn():
                self._take_back()
        finally:
            self._settling.pop()

    def runs(self) -> bool:
        """Whether its vCPUs run at present, or may do so at any time."""
        with self._turn():
            return _moves(self._look())

    @contextmanager
    def standing(self, limit: Callable[[], AbstractContextManager[None]] = nullcontext) -> Iterator[Stand]:
        """A block in which the machine stands, and after which it is as it was found: it runs if it ran.

        Within it nobody of this process pauses it or lets it run; who is to be long in it calls :meth:`check_wanted`
        now and then. ``limit`` makes what the waits are limited by, but for those in which the machine is let run.

        Raises as :meth:`pause`, and ``DriverUnavailableError`` at the end if somebody else let it run meanwhile.
        """
        stand = Stand()
        with self._turn(limit):
            with limit():
                state = self._look()
            if state.no_pause:
                raise DriverUnavailableError(state.no_pause)
            self._keeper = threading.get_ident()
            began = time.perf_counter()
            try:
                with limit():
                    self._stop_for(stand, state)
                yield stand
                with limit():
                    self._check_stood()
            finally:
                self._keeper = 0
                if stand.stopped:
                    self._take_back()
                    stand.seconds = time.perf_counter() - began

    def check_not_kept(self) -> None:
        """Raise ``DriverUnavailableError`` if this very thread is in :meth:`standing`."""
        if self._keeper == threading.get_ident():
            raise DriverUnavailableError("this thread is taking a snapshot of the machine: wait until that is over")

    def check_wanted(self) -> None:
        """Raise ``CancelledError`` if another thread waits for the machine to be let run for good."""
        if self._settling or self._ended:
            raise CancelledError("the machine is being closed, or left as it was found: nothing is done to it any more")

    def end(self) -> None:
        """Nothing is stopped from now on: the machine is being closed."""
        self._ended = True

    def close(self) -> None:
        """Settle for the last time: what cannot be settled now is left to the machine."""
        try:
            self.settle()
        except MicrovmiError:
            self.leave()
            raise

    def leave(self) -> None:
        """Where a machine does not answer, leave the order to run with it, for when it goes on."""
        if self.owes and isinstance(self._driver, SupportsLateRun):
            self._driver.run_later()

    # ------------------------------------------------------------------------------------------------- with the lock

    @contextmanager
    def _turn(self, limit: Callable[[], AbstractContextManager[None]] = nullcontext) -> Iterator[None]:
        self.check_not_kept()
        with limit():
            deadline = Deadline(_PATIENCE)
        if not self._lock.acquire(timeout=deadline.seconds):
            raise TimeoutExpiredError(f"another thread has been pausing or resuming for {deadline.seconds:g} s")
        try:
            with one_session(self._driver):
                yield
        finally:
            self._lock.release()

    def _look(self) -> RunState:
        """The run state now, and what it says about our stop."""
        try:
            state = self._driver.run_state()
        except VmGoneError:
            self._forget()
            raise
        if state.phase is Phase.STOPPED and self._stop is _Stop.SENT:
            self._stop = _Stop.DONE
        over = state.phase is Phase.RUNS and self._stop is _Stop.DONE  # somebody else let it run
        if over or state.phase is Phase.HALTED:
            self._forget()
        return state

    def _forget(self) -> None:
        if self.owes:
            self._keep(False)
        self._stop = _Stop.NONE

    def _order_stop(self) -> None:
        if self._ended:
            raise was_closed()
        self._keep(False)
        self._stop, self._awaited_until = _Stop.SENT, _NEVER
        try:
            self._driver.stop()
        except (TimeoutExpiredError, DriverUnavailableError):
            raise
        except MicrovmiError:
            with suppress(MicrovmiError):
                if self._look().phase is Phase.RUNS:
                    self._forget()
            raise
        self._stop = _Stop.DONE

    def _stop_for(self, stand: Stand, state: RunState) -> None:
        """Stop a machine that runs. One that sleeps, which cannot be stopped, stands; so does one that is stopped."""
        if _moves(state):
            stand.stopped = True
            self._order_stop()
        elif self._stop is _Stop.DONE:
            self._keep(True)  # what others wrote to it meanwhile is read

    def _check_stood(self) -> None:
        if _moves(self._look()):
            raise DriverUnavailableError("somebody else let the machine run meanwhile: try again")

    def _take_back(self) -> None:
        """Let the machine run if it still stands by our stop."""
        if not self.owes:
            return
        self._keep(False)
        try:
            self._decided(self._look())
            if self._stop is _Stop.DONE:
                self._driver.run(whoever=False)
        except VmGoneError as err:
            _log.info("nothing to let run: %s", err)
        self._stop = _Stop.NONE

    def _decided(self, state: RunState) -> RunState:
        """The run state when a stop without an answer has come, or will not; and whatever is under way is over.

        Raises ``TimeoutExpiredError`` if the time is too short for that.
        """
        deadline = Deadline(_LATE)
        self._awaited_until = min(self._awaited_until, time.monotonic() + _LATE)
        while state.phase is Phase.PASSING or (self._stop is _Stop.SENT and state.phase is Phase.RUNS):
            if time.monotonic() >= self._awaited_until and state.phase is Phase.RUNS:
                break
            if deadline.expired:
                raise TimeoutExpiredError(state.no_resume or "a stop that was not answered may still come")
            if isinstance(self._driver, SupportsSessions):
                self._driver.leave_session()
            time.sleep(_LOOK)
            state = self._look()
        return state


def _moves(state: RunState) -> bool:
    """Whether the vCPUs of a machine run; one that sleeps does not, though it can wake up."""
    return state.phase is Phase.RUNS and not state.no_resume


def one_session(driver: object) -> AbstractContextManager[None]:
    """A :meth:`SupportsSessions.session` of a driver that has them."""
    return driver.session() if isinstance(driver, SupportsSessions) else nullcontext()
