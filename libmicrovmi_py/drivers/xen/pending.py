# SPDX-License-Identifier: Apache-2.0
"""What was taken out of Xen's ring and nobody was told yet, and the thread that takes while a domain is observed.

A vCPU that is observed does not wait for an answer, but for room in the ring, of which there is little. So while
anything is observed the ring is emptied at once, whether anybody listens or not, and what waits here may be lost.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Set
from itertools import islice

from libmicrovmi_py.declare import replace
from libmicrovmi_py.drivers.xen import vmevent
from libmicrovmi_py.drivers.xen.session import Session
from libmicrovmi_py.errors import MicrovmiError
from libmicrovmi_py.events import EventKind, Intercept, InterceptFlag, Stop

MOST = 1 << 14
"""So many observed events are kept; then the oldest is lost for each that comes."""

_ROUND = 64
"""Entries that are taken at once at most, as a guest may write on and on."""


def observing(number: int) -> Intercept:
    """The intercept that observes a control register."""
    return Intercept(EventKind.CR, number, flags=InterceptFlag.OBSERVE)


class Pending:
    """In their order, but vCPUs that stand come first. Not for several threads at once."""

    def __init__(self) -> None:
        self._standing: deque[Stop] = deque()
        self._observed: deque[Stop] = deque()
        self._lost: Counter[Intercept | None] = Counter()

    def take(self, session: Session, armed: Set[Intercept]) -> bool:
        """Take what has come; whether there may be more. Raises ``IoError`` for a broken ring."""
        count = 0
        for request in islice(session.requests(), _ROUND):
            count += 1
            self._add(session, request, armed)
        return count == _ROUND

    def _add(self, session: Session, request: vmevent.Request, armed: Set[Intercept]) -> None:
        """The place in the ring of who does not wait, and of what nobody can have asked for, is given back at once."""
        stop = request.stop()
        if stop is None or not stop.waits:
            session.respond(request.answer())
        if stop is None:
            return
        seer = observing(stop.number) if stop.kind is EventKind.CR else None
        if seer in armed:
            self._observe(replace(stop, waits=False, token=None, told_by=seer))
        if stop.waits or seer not in armed:
            self._standing.append(stop)

    def _observe(self, stop: Stop) -> None:
        if len(self._observed) == MOST:
            self._lost[self._observed.popleft().told_by] += 1
        self._observed.append(stop)

    def pop(self) -> Stop | None:
        """The next one."""
        if self._standing:
            return self._standing.popleft()
        if not self._observed:
            return None
        stop = self._observed.popleft()
        lost = self._lost.pop(stop.told_by, 0)
        return replace(stop, lost=lost) if lost else stop

    def __bool__(self) -> bool:
        return bool(self._standing or self._observed)

    def forget(self, intercept: Intercept) -> None:
        """Nobody observes that any more."""
        self._observed = deque(stop for stop in self._observed if stop.told_by != intercept)
        self._lost.pop(intercept, None)

    def clear(self) -> None:
        """Forget everything."""
        self._standing.clear()
        self._observed.clear()
        self._lost.clear()


class Taker:
    """A thread that empties the ring, from its making until :meth:`end`.

    ``take`` waits until something comes, for a moment at most, and takes it; an error ends the thread, and comes again
    in the call that listens.
    """

    def __init__(self, take: Callable[[], None]) -> None:
        self._take = take
        self._ended = False
        threading.Thread(target=self._run, name="libmicrovmi-xen", daemon=True).start()

    def _run(self) -> None:
        try:
            while not self._ended:
                self._take()
        except MicrovmiError:
            self._ended = True

    @property
    def runs(self) -> bool:
        """Whether somebody takes; else who listens has to."""
        return not self._ended

    def end(self) -> None:
        """Take nothing more."""
        self._ended = True
