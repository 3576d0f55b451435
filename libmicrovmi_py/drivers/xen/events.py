# SPDX-License-Identifier: Apache-2.0
"""Events of a domain: what is intercepted, what waits for an answer, and how it is answered."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable

from libmicrovmi_py.drivers.base import check_vcpu
from libmicrovmi_py.drivers.xen import arming, vmevent
from libmicrovmi_py.drivers.xen.control import Control
from libmicrovmi_py.drivers.xen.session import Session
from libmicrovmi_py.drivers.xen.vcpus import Vcpus
from libmicrovmi_py.errors import InvalidArgumentError, IoError, MicrovmiError, NotSupportedError, VmGoneError, logger
from libmicrovmi_py.events import ALL_VCPUS, Event, EventKind, Intercept, PageAccess, Reply, ReplyAction
from libmicrovmi_py.model import Registers
from libmicrovmi_py.transport.deadline import Deadline

_log = logger(__name__)

_LOOK = 0.1
"""Seconds after which a wait looks whether the domain and the session are still there."""

_PATIENCE = 5.0
"""Seconds in which vCPUs that wait for room in the ring have to get it at the end."""

_WRITES = (EventKind.CR, EventKind.MSR)

_Key = tuple[EventKind, int]


class Listener:
    """Intercepts and open events of one domain.

    Xen intercepts on all vCPUs; what happens on one that nobody asked for is answered at once. A vCPU that writes a
    register is stopped behind the instruction, with the value written: so a listener that dies leaves nothing but a
    stopped vCPU. DENY puts the old value back.
    """

    def __init__(self, control: Control, vcpus: Vcpus, connect: Callable[[], Session]) -> None:
        self._control = control
        self._vcpus = vcpus
        self._connect = connect
        self._lock = threading.RLock()
        self._session: Session | None = None
        self._wanted: dict[_Key, set[int]] = {}
        self._open: dict[int, tuple[Event, vmevent.Request]] = {}
        self._waiting: deque[Event] = deque()
        self._accesses: dict[int, PageAccess] = {}
        self._numbers = itertools.count(1)

    def _connected(self) -> Session:
        if self._session is None:
            self._session = self._connect()
        return self._session

    # --------------------------------------------------------------------------------------------------- intercepts

    def toggle(self, vcpu: int, intercept: Intercept, enabled: bool) -> None:
        """As ``SupportsEvents.toggle_intercept``."""
        count = self._control.info().vcpus
        if vcpu != ALL_VCPUS:
            check_vcpu(vcpu, count)
        vcpus = set(range(count)) if vcpu == ALL_VCPUS else {vcpu}
        key = arming.checked(intercept)
        with self._lock:
            before = self._wanted.get(key, set())
            after = before | vcpus if enabled else before - vcpus
            if after == before:
                return
            if enabled:
                self._connected()
            self._wanted[key] = after
            try:
                self._arm(key, before, after)
            except BaseException:
                self._wanted[key] = before
                raise
            if not enabled and self._session is not None:
                self._settle_unwanted(self._session)

    def _arm(self, key: _Key, before: set[int], after: set[int]) -> None:
        if bool(before) != bool(after):
            arming.arm(self._control, *key, enabled=bool(after))
            if key[0] is EventKind.PAGE_ACCESS:
                for frame, access in self._accesses.items():
                    arming.allow(self._control, frame, access if after else PageAccess.ALL)
        if key[0] is EventKind.SINGLE_STEP:
            for vcpu in before ^ after:
                arming.step(self._control, vcpu, enabled=vcpu in after)

    # ------------------------------------------------------------------------------------------------ page accesses

    def access(self, frame: int) -> PageAccess:
        """What the guest may do with a frame; the listener is the only one that Xen lets change it."""
        return self._accesses.get(frame, PageAccess.ALL)

    def allow(self, frame: int, access: PageAccess) -> None:
        """Take from the guest what ``access`` lacks, once accesses are intercepted: each that lacks stops it."""
        with self._lock:
            self._connected()
            arming.arm(self._control, EventKind.PAGE_ACCESS, 0, enabled=True)
            if self._wanted.get((EventKind.PAGE_ACCESS, 0)):
                arming.allow(self._control, frame, access)
            self._accesses[frame] = access

    # ------------------------------------------------------------------------------------------------------- events

    def listen(self, timeout: float) -> Event | None:
        """As ``SupportsEvents.listen``."""
        deadline = Deadline(timeout)
        while True:
            with self._lock:
                session = self._session
                event = self._next(session) if session else None
            left = deadline.remaining
            if event is not None or not left:
                return event
            self._control.info()
            if session:
                session.wait(min(left, _LOOK))
            else:
                time.sleep(min(left, _LOOK))

    def _next(self, session: Session) -> Event | None:
        self._collect(session)
        return self._waiting.popleft() if self._waiting else None

    def _collect(self, session: Session) -> None:
        """Take what has come; answer what nobody asked for."""
        for request in session.requests():
            event = request.event(next(self._numbers))
            if event is None or not self._is_wanted(event):
                self._settle(session, request, event)
                continue
            self._waiting.append(event)
            if request.waits:
                self._open[event.id] = event, request

    def _is_wanted(self, event: Event) -> bool:
        return event.vcpu in self._wanted.get((event.kind, event.number), ())

    def _settle_unwanted(self, session: Session) -> None:
        """Answer what came before its intercept was switched off and nobody has seen; nobody may ever look again."""
        with self._control.held():  # nothing is on its way then
            self._collect(session)
        for event in [event for event in self._waiting if not self._is_wanted(event)]:
            self._waiting.remove(event)
            _, request = self._open.pop(event.id, (event, None))
            if request is not None:
                self._settle(session, request, event)

    def _settle(self, session: Session, request: vmevent.Request, event: Event | None) -> None:
        """CONTINUE, whatever happens: nobody can answer this later."""
        try:
            self._go_on(session, request, event)
        except VmGoneError:
            raise
        except MicrovmiError as err:
            _log.warning("an event of vCPU %d: %s", request.vcpu, err)
            session.respond(request.answer())

    def _go_on(
        self, session: Session, request: vmevent.Request, event: Event | None, registers: Registers | None = None
    ) -> None:
        """CONTINUE, with general registers if they are to be set."""
        flags = 0
        if event is not None and event.kind is EventKind.BREAKPOINT:
            arming.inject_breakpoint(self._control, request)
        elif event is not None and event.kind is EventKind.PAGE_ACCESS:
            flags = vmevent.EMULATE
        if request.waits:
            session.respond(request.answer(flags, registers))

    # ------------------------------------------------------------------------------------------------------ answers

    def reply(self, event: Event, reply: Reply) -> None:
        """As ``SupportsEvents.reply_event``."""
        with self._lock:
            if event.id not in self._open or self._session is None:
                raise InvalidArgumentError(f"event {event.id} does not wait for an answer (any more)")
            known, request = self._open[event.id]
            if reply.action is ReplyAction.DENY and known.kind not in _WRITES:
                raise NotSupportedError(f"an event of {known.kind.name} cannot be denied: answer CONTINUE or RETRY")
            if known.kind in _WRITES and reply.action is not ReplyAction.CONTINUE:
                self._take_back(known, request, reply)
                reply = Reply(ReplyAction.RETRY)
            self._answer(self._session, known, request, reply)
            del self._open[event.id]

    def _take_back(self, event: Event, request: vmevent.Request, reply: Reply) -> None:
        """Put a register's old value back, and for RETRY the vCPU before the instruction."""
        rip = request.rip if reply.action is ReplyAction.RETRY else None
        self._vcpus.take_back(event, rip, reply.registers)

    def _answer(self, session: Session, event: Event, request: vmevent.Request, reply: Reply) -> None:
        general = None
        if reply.registers is not None:
            general = self._vcpus.set_beyond_general(event.vcpu, reply.registers)
        if reply.action is ReplyAction.CONTINUE:
            self._go_on(session, request, event, general)
        else:
            session.respond(request.answer(registers=general))

    # ------------------------------------------------------------------------------------------------------ the end

    def release(self) -> None:
        """As ``SupportsEvents.release_events``."""
        with self._lock:
            session, deadline = self._session, Deadline(_PATIENCE)
            if session is None:
                return
            try:
                while not self._let_go(session):
                    if deadline.expired:
                        raise IoError("ending events: vCPUs still wait for room in the ring")
                    time.sleep(0.01)
            except VmGoneError:
                pass
            finally:
                self.abandon()

    def _let_go(self, session: Session) -> bool:
        """Disarm, answer everything and end the session while the domain stands still; ``False``: let it run a bit."""
        with self._control.held():
            for key, vcpus in self._wanted.items():
                self._wanted[key] = set()
                self._disarm(key, vcpus)
            self._collect(session)
            for event, request in self._open.values():
                self._settle(session, request, event)
            self._open.clear()
            return session.disable()

    def _disarm(self, key: _Key, vcpus: set[int]) -> None:
        """Whatever happens: the end of the session disarms as well, but for page accesses."""
        try:
            self._arm(key, vcpus, set())
        except VmGoneError:
            raise
        except MicrovmiError as err:
            _log.warning("events of %s: %s", key[0].name, err)

    def abandon(self) -> None:
        """Forget everything, of a domain that ended for example."""
        with self._lock:
            session, self._session = self._session, None
            for known in (self._wanted, self._open, self._waiting, self._accesses):
                known.clear()
            if session is not None:
                session.close()
