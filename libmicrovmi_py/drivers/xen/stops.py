# SPDX-License-Identifier: Apache-2.0
"""Stops of a domain: what Xen is told to stop it at, what has come, and how that is answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from libmicrovmi_py.drivers.xen import arming, vmevent
from libmicrovmi_py.drivers.xen.library import Libraries
from libmicrovmi_py.drivers.xen.pending import Pending, Taker, observing
from libmicrovmi_py.drivers.xen.session import Session, connect, free_stopped
from libmicrovmi_py.drivers.xen.vcpus import Vcpus
from libmicrovmi_py.drivers.xen.xenctrl import Domain
from libmicrovmi_py.errors import MicrovmiError, NotSupportedError, VmGoneError
from libmicrovmi_py.events import (
    Breakpoints,
    EventAbilities,
    EventKind,
    Intercept,
    InterceptFlag,
    PageAccess,
    ReplyAction,
    Stop,
)
from libmicrovmi_py.transport.deadline import Deadline

_LOOK = 0.1
"""Seconds after which a wait looks whether the domain and the session are still there."""

_WRITES = (EventKind.CR, EventKind.MSR)
_BACK_AND_ON = frozenset({ReplyAction.CONTINUE, ReplyAction.RETRY})

_OTHERS = (EventKind.BREAKPOINT, EventKind.PAGE_ACCESS, EventKind.SINGLE_STEP)

ANSWERS = dict.fromkeys(_WRITES, frozenset(ReplyAction)) | dict.fromkeys(_OTHERS, _BACK_AND_ON)
"""The answers to each kind of event, on a processor that has them all."""

_NO_RANGES = "a range may be mapped elsewhere at any time, so VIRTUAL_ACCESS would miss some: intercept PAGE_ACCESS"


class Stops:
    """What a domain is stopped at.

    Xen intercepts on all vCPUs, but for single steps. A vCPU that writes a register is stopped behind the instruction,
    with the value written: so a listener that dies leaves nothing but a stopped vCPU. DENY puts the old value back.
    """

    def __init__(self, libraries: Libraries, domain: Domain, vcpus: Vcpus) -> None:
        """Raises ``VmGoneError``."""
        self._libraries = libraries
        self._domain = domain
        self._vcpus = vcpus
        self._lock = threading.RLock()
        self._session: Session | None = None
        self.abilities = _abilities(domain)
        self._armed: set[Intercept] = set()
        self._stepped: set[int] = set()
        self._accesses: dict[int, PageAccess] = {}
        self._pending = Pending()
        self._came = threading.Condition(self._lock)  # of something that the taker took
        self._taker: Taker | None = None  # while anything is observed

    def _connected(self) -> Session:
        """Xen allows a domain one listener; the first order makes this program that."""
        if self._session is None:
            self._session = connect(self._libraries, self._domain)
        return self._session

    # ------------------------------------------------------------------------------------------------------- arming

    def arm(self, intercept: Intercept, vcpus: frozenset[int]) -> None:
        """As ``SupportsEvents.arm``, but for what happens on vCPUs that are not named: it comes as well."""
        with self._lock:
            if vcpus:
                self._connected()
            if vcpus and intercept not in self._armed:
                self._switch_on(intercept)
            if intercept.kind is EventKind.SINGLE_STEP:
                self._step(vcpus)
            if not vcpus and intercept in self._armed:
                self._switch_off(intercept)

    def _switch_on(self, intercept: Intercept) -> None:
        if intercept.kind is EventKind.CR:
            self._switch_writes(intercept.number, self._armed | {intercept})
            return
        if intercept.kind is not EventKind.PAGE_ACCESS:
            arming.switch(self._domain, intercept, enabled=True)
            self._armed.add(intercept)
            return
        self._armed.add(intercept)  # of several frames some may have been taken when one fails
        for frame, access in self._accesses.items():
            arming.allow(self._domain, frame, access)

    def _switch_off(self, intercept: Intercept) -> None:
        if intercept.kind is EventKind.CR:
            self._switch_writes(intercept.number, self._armed - {intercept})
            self._pending.forget(intercept)
            return
        if intercept.kind is EventKind.PAGE_ACCESS:
            with ExitStack() as steps:  # each frame is given back, whatever becomes of the others
                for frame in self._accesses:
                    steps.callback(arming.allow, self._domain, frame, PageAccess.ALL)
        else:
            arming.switch(self._domain, intercept, enabled=False)
        self._armed.discard(intercept)

    def _switch_writes(self, number: int, after: set[Intercept]) -> None:
        """Xen stops at writes of a register or tells of them only; who observes what others stop at sees the stops."""
        before, wanted = _stands(number, self._armed), _stands(number, after)
        with ExitStack() as steps:
            if None not in (before, wanted) and before != wanted:
                steps.enter_context(self._domain.held())  # no write falls in between
                arming.switch_writes(self._domain, number, enabled=False)
            if before != wanted:
                arming.switch_writes(self._domain, number, enabled=wanted is not None, stands=wanted is not False)
            self._armed = after
        if any(observing(each) in after for each in vmevent.CR_INDEXES):
            self._taker = self._taker or Taker(self._take)
        else:
            self._end_taker()

    def _take(self) -> None:
        """What the taker does."""
        session = self._session
        if session is not None:
            session.wait(_LOOK)
        with self._lock:
            if session is not None and session is self._session:
                self._pending.take(session, self._armed)
                self._came.notify_all()

    def _end_taker(self) -> None:
        if self._taker is not None:
            self._taker.end()
            self._taker = None

    def _step(self, vcpus: frozenset[int]) -> None:
        for vcpu in self._stepped ^ vcpus:
            arming.step(self._domain, vcpu, enabled=vcpu in vcpus)
            self._stepped ^= {vcpu}

    # ------------------------------------------------------------------------------------------------ page accesses

    def access(self, frame: int) -> PageAccess:
        """What the guest may do with a frame; the listener is the only one that Xen lets change it."""
        return self._accesses.get(frame, PageAccess.ALL)

    def allow(self, frame: int, access: PageAccess) -> None:
        """Take from the guest what ``access`` lacks, once accesses are intercepted: each that lacks stops it."""
        with self._lock:
            if EventKind.PAGE_ACCESS not in self.abilities.kinds:
                raise NotSupportedError(arming.needs({EventKind.PAGE_ACCESS}))
            self._connected()
            if Intercept(EventKind.PAGE_ACCESS) in self._armed:
                arming.allow(self._domain, frame, access)
            self._accesses[frame] = access
            if access == PageAccess.ALL:
                del self._accesses[frame]

    # -------------------------------------------------------------------------------------------------------- stops

    def poll(self, timeout: float) -> Stop | None:
        """As ``SupportsEvents.poll``."""
        deadline = Deadline(timeout)
        while True:
            with self._lock:
                session = self._session
                stop = self._next(session) if session else None
            left = deadline.remaining
            if stop is not None or not left:
                return stop
            self._domain.info()
            self._wait(session, min(left, _LOOK))

    def _next(self, session: Session) -> Stop | None:
        """The next entry of the ring that may be somebody's."""
        self._pending.take(session, self._armed)
        return self._pending.pop()

    def _wait(self, session: Session | None, seconds: float) -> None:
        """Until something may have come; what the taker takes is not in the ring any more."""
        taker = self._taker
        if taker is not None and taker.runs:
            with self._lock:
                if not self._pending:
                    self._came.wait(seconds)
        elif session:
            session.wait(seconds)
        else:
            time.sleep(seconds)

    def resume(self, stop: Stop, action: ReplyAction, registers: Mapping[str, int] | None) -> None:
        """As ``SupportsEvents.resume``. There are MSRs whose old value Xen does not take."""
        request = stop.token
        assert isinstance(request, vmevent.Request)
        with self._lock:
            session = self._session
            if session is None:
                raise self._domain.ended()  # a stop comes of a session, which else ends when nothing is open
            session.respond(self._answer(request, stop, action, registers))

    def _answer(
        self, request: vmevent.Request, stop: Stop, action: ReplyAction, registers: Mapping[str, int] | None
    ) -> bytes:
        """Do what an answer cannot, and make it."""
        if stop.kind in _WRITES and action is not ReplyAction.CONTINUE:
            self._vcpus.take_back(stop, request.rip if action is ReplyAction.RETRY else None, registers)
            return request.answer()
        general = self._vcpus.set_beyond_general(stop.vcpu, registers) if registers is not None else None
        if action is ReplyAction.CONTINUE and stop.kind is EventKind.BREAKPOINT:
            arming.inject_breakpoint(self._domain, request)
        emulated = action is ReplyAction.CONTINUE and stop.kind is EventKind.PAGE_ACCESS
        return request.answer(vmevent.EMULATE if emulated else 0, general)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """As ``SupportsEvents.quiet``: the domain is held."""
        with ExitStack() as held:
            if self._session is not None:
                held.enter_context(self._domain.held())
            yield

    # ------------------------------------------------------------------------------------------------------ the end

    def end(self) -> bool:
        """As ``SupportsEvents.end_events``."""
        with self._lock:
            try:
                return self._session is None or self._ended(self._session)
            except VmGoneError:
                return True  # it was abandoned

    def _ended(self, session: Session) -> bool:
        """The domain is held: a vCPU that found room in the ring now would never be answered."""
        if not session.disable():
            return False
        lost = session.ring.unanswered
        self.abandon()
        if lost:
            free_stopped(self._libraries, self._domain)
        return True

    def abandon(self) -> None:
        """Forget everything, of a domain that ended for example."""
        with self._lock:
            session, self._session = self._session, None
            self._end_taker()
            self._pending.clear()
            for known in (self._armed, self._stepped, self._accesses):
                known.clear()
            if session is not None:
                session.close()


def _abilities(domain: Domain) -> EventAbilities:
    """What Xen can stop a domain at, which depends on the processor."""
    try:
        possible = arming.possible(domain)
    except VmGoneError:
        raise
    except MicrovmiError as err:
        return EventAbilities({}, why_not=str(err))
    missing = ANSWERS.keys() - possible
    return EventAbilities(
        kinds={kind: answers for kind, answers in ANSWERS.items() if kind in possible},
        breakpoints=frozenset({Breakpoints.OWN}) if EventKind.BREAKPOINT in possible else frozenset(),
        why_not="; ".join([*([arming.needs(missing)] if missing else []), _NO_RANGES]),
        flags={EventKind.CR: InterceptFlag.EVERY_WRITE | InterceptFlag.OBSERVE} if EventKind.CR in possible else {},
        implied=InterceptFlag.EVERY_WRITE,
    )


def _stands(number: int, armed: set[Intercept]) -> bool | None:
    """Whether a vCPU that writes that register stands then; ``None``: nobody is told."""
    if Intercept(EventKind.CR, number) in armed:
        return True
    return False if observing(number) in armed else None
