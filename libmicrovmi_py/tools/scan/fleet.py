# SPDX-License-Identifier: Apache-2.0
"""Who has scanned what: every machine is told once, and those of a worker that ended are handed out again."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from libmicrovmi_py.errors import DriverUnavailableError, MicrovmiError, told
from libmicrovmi_py.tools.scan import job as jobs
from libmicrovmi_py.tools.scan import look
from libmicrovmi_py.tools.scan.calls import Calls, Engine, Failed
from libmicrovmi_py.tools.scan.functions import Wanted
from libmicrovmi_py.tools.scan.look import Place, Target

ANSWER = 60.0
"""Seconds that workers have to tell where they are, and their machines."""

TRIES = 3
"""How often a machine is handed out whose workers end."""

PATIENCE = 60.0
"""Seconds that the machines of a host wait for another worker there, when its last one has ended."""


class Fleet:
    """All machines of all workers' hosts. ``note`` is told, in a line, what goes wrong beside them."""

    def __init__(self, engine: Engine, job: jobs.Job, note: Callable[[str], None], patience: float = PATIENCE) -> None:
        self._job, self._note, self._patience = job, note, patience
        self._calls = Calls(engine)
        self._places: dict[str, Place | None] = {}
        self._found: dict[str, tuple[Place | None, Target]] = {}
        self._waiting: dict[Place | None, deque[Target]] = {}
        self._tries: Counter[str] = Counter()
        self._told: set[str] = set()
        self._ready: list[dict[str, Any]] = []
        self._left: dict[Place | None, float] = {}
        self.missed: set[Place] = set()
        """Hosts whose machines nobody could list."""

    def find(self, driver: str | None = None, only: str = "*") -> None:
        """Have each host's machines listed whose names match. Raises ``DriverUnavailableError`` without a worker."""
        self._ask_places()
        self._calls.settle(ANSWER)
        if not any(self._places.values()):
            raise DriverUnavailableError("no worker can be used; its own output may say more")
        self.missed = {where for where in self._places.values() if where is not None}
        for _ in range(TRIES):
            for where, worker in {where: worker for worker, where in self._usable()}.items():
                if where in self.missed:
                    self._calls.start(worker, partial(self._listed, where, only), list_targets, driver)
            self._calls.settle(ANSWER)
        for where in self.missed:
            self._note(f"the machines of {where.host} are not known")

    def add(self, uri: str) -> None:
        """A machine that any worker may open."""
        target = look.named(uri)
        self._found[target.identity] = None, target

    def __len__(self) -> int:
        return len(self._found)

    def run(self) -> Generator[dict[str, Any], None, None]:
        """A document of each machine, as they come. Calls that still run when the caller goes away are cancelled."""
        for where, target in self._found.values():
            self._waiting.setdefault(where, deque()).append(target)
        try:
            while len(self._told) < len(self._found):
                self._ask_places()
                self._hand_out()
                self._calls.step()
                self._give_up()
                yield from self._ready
                self._ready.clear()
        finally:
            self._calls.cancel()

    # ------------------------------------------------------------------------------------------------ workers -----

    def _usable(self) -> Iterator[tuple[str, Place]]:
        """The workers that are there, and said where that is."""
        for worker in self._calls.alive:
            if (where := self._places.get(worker)) is not None:
                yield worker, where

    def _ask_places(self) -> None:
        """Ask the workers that are new where they are."""
        for worker in set(self._calls.alive) - set(self._places):
            self._places[worker] = None
            self._calls.start(worker, partial(self._placed, worker), tell_place)

    def _placed(self, worker: str, answer: object) -> None:
        try:
            self._places[worker] = look.checked_place(_returned(answer))
        except MicrovmiError as err:
            self._note(f"the worker {worker} is not used: {told(err)}")

    def _listed(self, where: Place, only: str, answer: object) -> None:
        """One that ended is no answer: another worker of the host is asked."""
        try:
            targets = look.checked(_returned(answer))
        except MicrovmiError as err:
            self._note(f"{where.host}, where the machines are looked for: {told(err)}")
            return
        self.missed.discard(where)
        for target in targets:
            known = self._found.get(target.identity)
            if fnmatchcase(target.name, only) and (known is None or (known[1].reason and not target.reason)):
                self._found[target.identity] = where, target

    # ----------------------------------------------------------------------------------------------- machines -----

    def _hand_out(self) -> None:
        """Every worker gets as many machines of its host as it takes at a time; then those that may be anywhere."""
        for worker, most in self._calls.alive.items():
            where = self._places.get(worker)
            waiting = [queue for key in (where, None) if (queue := self._waiting.get(key))]
            while where is not None and waiting and self._calls.busy(worker) < most:
                self._start(worker, where if waiting[0] is self._waiting.get(where) else None, waiting[0].popleft())
                waiting = [queue for queue in waiting if queue]

    def _start(self, worker: str, where: Place | None, target: Target) -> None:
        self._tries[target.identity] += 1
        self._calls.start(worker, partial(self._scanned, where, target), scan_target, target, self._job)

    def _scanned(self, where: Place | None, target: Target, answer: object) -> None:
        if isinstance(answer, Failed) and answer.lost and self._tries[target.identity] < TRIES:
            self._waiting[where].appendleft(target)
            return
        try:
            self._tell(target, jobs.checked(_returned(answer), self._job))
        except MicrovmiError as err:
            again = f" ({TRIES} workers have)" if isinstance(answer, Failed) and answer.lost else ""
            self._tell(target, {"error": f"{told(err)}{again}"})

    def _give_up(self) -> None:
        """The machines of a host that has had no worker for too long."""
        there = {where for _, where in self._usable()}
        now = time.monotonic()
        for where, queue in self._waiting.items():
            if not queue or where in there or (where is None and there):
                self._left.pop(where, None)
            elif now - self._left.setdefault(where, now) >= self._patience:
                while queue:
                    self._tell(queue.popleft(), {"error": f"no worker is left there since {self._patience:g} s"})

    def _tell(self, target: Target, answer: dict[str, Any]) -> None:
        if target.identity not in self._told:
            self._told.add(target.identity)
            self._ready.append({**target.document, **answer})


def _returned(answer: object) -> object:
    if isinstance(answer, Failed):
        raise DriverUnavailableError(answer.reason)
    return answer


# What workers run, by name: they have this package as well, and nothing is sent but words and numbers.


def tell_place() -> list[object]:
    """Where the worker is."""
    return list(look.place())


def list_targets(driver: str | None) -> list[list[object]]:
    """The machines of its host."""
    return [list(target) for target in look.targets(driver)]


def scan_target(target: Sequence[Any], job: Sequence[Any]) -> bytes:
    """The answer for one of them. Both come as sequences: an engine need not keep what else they are."""
    wanted, *others = job
    return jobs.run(Target(*target), jobs.Job(Wanted(*wanted), *others))
