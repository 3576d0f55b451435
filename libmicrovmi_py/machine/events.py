# SPDX-License-Identifier: Apache-2.0
"""Events of one machine: what is wanted, what is open, how it may be answered, and giving all of it back.

Once for all drivers. What is about to be done is in the books before it is ordered, as an order whose answer is late,
or an error, may have been carried out.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from libmicrovmi_py.declare import replace
from libmicrovmi_py.drivers.base import SupportsEvents, SupportsPageAccess
from libmicrovmi_py.errors import (
    DriverUnavailableError,
    InvalidArgumentError,
    MicrovmiError,
    NotSupportedError,
    TimeoutExpiredError,
    VmGoneError,
    logger,
    was_closed,
)
from libmicrovmi_py.events import (
    ALL_VCPUS,
    UNKNOWN_VCPU,
    Breakpoints,
    Event,
    EventAbilities,
    EventKind,
    Intercept,
    InterceptFlag,
    PageAccess,
    Reply,
    ReplyAction,
    Stop,
)
from libmicrovmi_py.machine.failures import Failures
from libmicrovmi_py.model import check_vcpu
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.fds import StandardStreamsHeld

_log = logger(__name__)

_LOOK = 0.1
"""Seconds after which a wait for events looks whether it is still wanted."""

_PATIENCE = 5.0
"""Seconds for which vCPUs are awaited at the end that have yet to tell why they stand, and for other threads."""

_REST = 0.01
"""Seconds that the machine runs before it is asked again whether all have told."""


class EventSession:
    """What one user of a machine has to do with its events. All methods may be called from any thread.

    ``name`` is the driver's, for errors.
    """

    def __init__(self, driver: SupportsEvents, name: str) -> None:
        self._driver = driver
        self._name = name
        self._ended = False
        self._unwanted = False
        self._touched = False  # the machine
        self._listens = False
        self._ids = itertools.count(1)
        self._wanted: dict[Intercept, frozenset[int]] = {}  # and what may be armed, for no vCPU
        self._open: dict[int, Stop] = {}
        self._fresh: deque[tuple[int, Stop]] = deque()  # not handed out yet
        self._taken: dict[int, PageAccess] = {}  # by frame: what it was before
        self._orders = threading.RLock()  # the driver is told something; what is known changes in single steps
        self._polling = threading.RLock()
        self._next_to_poll = threading.RLock()

    @property
    def abilities(self) -> EventAbilities:
        """What the driver can stop at."""
        return self._driver.event_abilities

    @property
    def owes(self) -> bool:
        """Whether something of ours is, or may be, to be taken back."""
        return self._touched

    # --------------------------------------------------------------------------------------------------- intercepts

    def toggle(self, intercept: Intercept, enabled: bool, vcpu: int) -> None:
        """Stop a vCPU, or all, at what ``intercept`` names, or do so no more.

        Raises ``InvalidArgumentError`` for what no machine has, ``NotSupportedError`` for what this one cannot.
        """
        intercept = self._checked(intercept)
        count = self._driver.vcpu_count()
        if vcpu != ALL_VCPUS:
            check_vcpu(vcpu, count)
        self._check_ability(intercept, vcpu)
        intercept = replace(intercept, flags=intercept.flags & ~self._driver.event_abilities.implied)
        vcpus = frozenset(range(count) if vcpu == ALL_VCPUS else (vcpu,))
        with self._orders:
            before = self._wanted.get(intercept, frozenset())
            after = before | vcpus if enabled else before - vcpus
            if after != before:
                self._order(intercept, before, after)
        if after != before and not enabled:
            self._drop_unwanted()

    @staticmethod
    def _checked(intercept: Intercept) -> Intercept:
        from libmicrovmi_py.machine.intercepts import checked  # of whom reads memory only, nobody needs it

        return checked(intercept)

    def _check_ability(self, intercept: Intercept, vcpu: int) -> None:
        can, kind, address = self._driver.event_abilities, intercept.kind, intercept.address
        if kind not in can.kinds:
            raise NotSupportedError(f"the {self._name} driver cannot stop at {kind.name}: {can.why_not}")
        if missing := intercept.flags & ~can.flags.get(kind, InterceptFlag.NONE):
            names = " or ".join(flag.name or "" for flag in InterceptFlag if flag & missing)
            raise NotSupportedError(f"the {self._name} driver has no {names} for {kind.name}")
        if intercept.flags & InterceptFlag.OBSERVE and vcpu != ALL_VCPUS:
            raise NotSupportedError("who observes is not told which vCPU it was: name all of them")
        if kind is not EventKind.BREAKPOINT:
            return
        if address and Breakpoints.PLACED not in can.breakpoints:
            way_out = "write them into memory and intercept address 0, all of them"
            raise NotSupportedError(f"the {self._name} driver places no breakpoints: {way_out}")
        if not address and Breakpoints.OWN not in can.breakpoints:
            raise NotSupportedError(f"the {self._name} driver stops at breakpoints that it placed: name an address")

    def _order(self, intercept: Intercept, before: frozenset[int], after: frozenset[int]) -> None:
        self._begin()
        listened, self._listens, self._wanted[intercept] = self._listens, True, after
        try:
            self._driver.arm(intercept, after)
        except BaseException as err:
            self._listens = listened or not isinstance(err, DriverUnavailableError)
            self._wanted[intercept] = before
            self._take_back(intercept, before)
            raise
        if not after:
            del self._wanted[intercept]

    def _take_back(self, intercept: Intercept, before: frozenset[int]) -> None:
        """After an order that failed; it stays in the books if this fails as well."""
        failures = Failures()
        with failures.noted():
            self._driver.arm(intercept, before)
        if not before and not failures:
            del self._wanted[intercept]

    def _begin(self) -> None:
        if self._ended:
            raise was_closed()
        self._touched = True

    def _drop_unwanted(self) -> None:
        """Answer what came before its intercept was switched off and nobody has seen; nobody may ever look again."""
        with self._alone(), self._driver.quiet():
            self._drain()
            for number, stop in list(self._fresh):
                if not self._is_wanted(stop):
                    with suppress(ValueError):  # a caller has it now
                        self._fresh.remove((number, stop))
                        self._let_go(number)

    # ------------------------------------------------------------------------------------------------ page accesses

    def page_access(self, frame: int) -> PageAccess:
        """How the guest may access a frame. Raises ``NotMappedError``."""
        return self._paging("tell page accesses").get_page_access(frame)

    def set_page_access(self, frame: int, access: PageAccess) -> None:
        """Allow the guest ``access`` to a frame and nothing else. Raises as the driver does."""
        driver = self._paging("change page accesses")
        with self._orders:
            before = self._taken.get(frame)
            known = driver.get_page_access(frame) if before is None else before
            self._begin()
            self._taken[frame] = known
            try:
                driver.set_page_access(frame, access)
            except NotSupportedError:
                if before is None:
                    del self._taken[frame]
                raise
            if access == known:
                del self._taken[frame]

    def _paging(self, action: str) -> SupportsPageAccess:
        if not isinstance(self._driver, SupportsPageAccess):
            raise NotSupportedError(f"the {self._name} driver cannot {action}")
        return self._driver

    # ------------------------------------------------------------------------------------------------------- events

    def listen(self, timeout: float) -> Event | None:
        """The next event, ``None`` if there is none within ``timeout`` seconds.

        Raises ``InvalidContextError`` when the machine is closed meanwhile, or after :meth:`stop_listening`.
        """
        end = time.monotonic() + timeout
        while True:
            left = max(end - time.monotonic(), 0.0)
            event = self._next(min(left, _LOOK))
            if event is not None or not left:
                return event
            if self._ended or self._unwanted:
                raise was_closed("while it was listened to")

    def stop_listening(self) -> None:
        """End the waits of :meth:`listen` that other threads are in, and all later ones."""
        self._unwanted = True

    def _next(self, seconds: float) -> Event | None:
        """What is waiting already, else what comes first within so many seconds, past what nobody wants."""
        event, end = self._handed_out(), time.monotonic() + _LOOK
        try:
            if event is not None or not self._take_turn(seconds):
                return event
            while event is None and (stop := self._driver.poll(seconds)) is not None:
                unwanted = self._booked(stop)
                if unwanted is not None:
                    with self._orders:
                        self._let_go(unwanted)
                event = self._handed_out()
                seconds = 0.0
                if time.monotonic() > end:
                    break  # a guest that does nothing else keeps nobody from looking whether he is wanted
        finally:
            _give_back(self._polling)
        return event

    def _handed_out(self) -> Event | None:
        try:
            number, stop = self._fresh.popleft()
        except IndexError:
            return None
        return stop.event(number, self._driver.event_abilities.stands)

    def _take_turn(self, seconds: float) -> bool:
        """Be the one who polls, if nobody else does within about so many seconds; who waits for it is the next one."""
        try:
            return self._next_to_poll.acquire(timeout=seconds) and self._polling.acquire(timeout=seconds)
        finally:
            _give_back(self._next_to_poll)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else polls, and nobody else tells the driver anything."""
        deadline = Deadline(_PATIENCE)
        with ExitStack() as taken:
            for take, lock in ((self._take_turn, self._polling), (self._take_orders, self._orders)):
                taken.callback(_give_back, lock)
                if not take(deadline.remaining):
                    raise TimeoutExpiredError("another thread does not come back from the machine's events")
            yield

    def _take_orders(self, seconds: float) -> bool:
        return self._orders.acquire(timeout=seconds)

    def _booked(self, stop: Stop) -> int | None:
        """Book a stop; its number if nobody wants it."""
        number = next(self._ids)
        if stop.waits:
            self._open[number] = stop
        if not self._is_wanted(stop):
            return number
        self._fresh.append((number, stop))
        return None

    def _is_wanted(self, stop: Stop) -> bool:
        wanted = self._wanted.get(stop.intercept, frozenset())
        return stop.vcpu in wanted or (stop.vcpu == UNKNOWN_VCPU and bool(wanted))

    def _drain(self) -> None:
        while (stop := self._driver.poll(0)) is not None:
            unwanted = self._booked(stop)
            if unwanted is not None:
                self._let_go(unwanted)

    def _let_go(self, number: int) -> None:
        """Answer what nobody can answer later: as if nobody had listened, or at least so that the vCPU goes on."""
        stop = self._open.get(number)
        if stop is None:
            return
        try:
            self._driver.resume(stop, ReplyAction.CONTINUE, None)
        except VmGoneError:
            raise
        except MicrovmiError as err:
            _log.warning("an event of vCPU %d: %s", stop.vcpu, err)
            if ReplyAction.RETRY not in self._answers(stop):
                raise
            self._driver.resume(stop, ReplyAction.RETRY, None)
        del self._open[number]

    def reply(self, number: int, reply: Reply) -> None:
        """Answer the event of an id.

        Raises ``InvalidArgumentError`` for one that is not open (any more), ``NotSupportedError`` for an answer that
        it, its kind, or the hypervisor, does not have; the event then stays open.
        """
        with self._orders:
            stop = self._open.get(number)
            if stop is None:
                why = "it was answered, waits for no answer, or never happened"
                raise InvalidArgumentError(f"event {number} is not open: {why}")
            self._check_answer(stop, reply.action)
            values = None
            if reply.registers is not None:
                with StandardStreamsHeld():
                    from libmicrovmi_py.machine.registers import of_answer  # of whom answers without, nobody needs it
                values = of_answer(self._driver, reply.registers, stop.vcpu)
            self._driver.resume(stop, reply.action, values)
            del self._open[number]

    def _answers(self, stop: Stop) -> frozenset[ReplyAction]:
        return self._driver.event_abilities.kinds[stop.kind] if stop.answers is None else stop.answers

    def _check_answer(self, stop: Stop, action: ReplyAction) -> None:
        allowed = self._answers(stop)
        if action in allowed:
            return
        verb = {ReplyAction.DENY: "denied", ReplyAction.RETRY: "retried"}[action]
        names = " or ".join(action.name for action in sorted(allowed))
        way_out = f"answer {names}"
        if stop.kind is EventKind.CR and InterceptFlag.EVERY_WRITE not in stop.intercept.flags and stop.answers:
            way_out += ", or intercept EVERY_WRITE, which is told before"
        raise NotSupportedError(f"an event of {stop.kind.name} cannot be {verb}: {way_out}")

    # ------------------------------------------------------------------------------------------------------ the end

    def end(self) -> None:
        """Nothing is armed from now on, and waits end: the machine is being closed."""
        self._ended = True

    def release(self) -> None:
        """Leave the guest as if nobody had ever listened; each step is done whatever becomes of the one before.

        What could not be undone stays in the books, and is raised. A machine that ended needs nothing.
        """
        if not self._touched:
            return
        with self._alone():
            deadline, failures = Deadline(_PATIENCE), Failures()
            while not self._let_all_go(failures):
                if deadline.expired:
                    raise TimeoutExpiredError("vCPUs still wait for room to tell why they stand")
                time.sleep(_REST)
            if failures.gone:
                self._forget()
            failures.tell()
            self._touched = self._listens = False

    def _let_all_go(self, failures: Failures) -> bool:
        """Disarm, give back, answer and end; ``False``: some vCPUs have yet to tell why they stand."""
        done = True
        with failures.noted(), ExitStack() as still:
            with failures.noted():
                still.enter_context(self._driver.quiet())
            self._disarm(failures)
            with failures.noted():
                if self._listens:
                    self._drain()
            self._fresh.clear()
            for number in list(self._open):
                with failures.noted():
                    self._let_go(number)
            with failures.noted():
                done = self._driver.end_events()
        return done

    def _disarm(self, failures: Failures) -> None:
        for intercept in list(self._wanted):
            with failures.noted():
                self._driver.arm(intercept, frozenset())
                del self._wanted[intercept]
        for frame, access in list(self._taken.items()):
            with failures.noted():
                self._paging("give back a page").set_page_access(frame, access)
                del self._taken[frame]

    def _forget(self) -> None:
        for known in (self._wanted, self._open, self._taken, self._fresh):
            known.clear()


def _give_back(lock: threading.RLock) -> None:
    """Release a lock if this thread has it: the exception of a signal's handler may come right behind its taking."""
    if lock._is_owned():  # type: ignore[attr-defined]
        lock.release()
