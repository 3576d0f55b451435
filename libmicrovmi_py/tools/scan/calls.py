# SPDX-License-Identifier: Apache-2.0
"""Calls of workers: what an engine has to have, and what becomes of each call, whether its worker lives or not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, Protocol

TICK = 0.5
"""Seconds between two looks at which workers there are."""


class Failed(NamedTuple):
    """Instead of what a call returns: why it returned nothing, and whether that is because its worker ended."""

    reason: str
    lost: bool = False


class Call(Protocol):
    """A function that one worker runs."""

    def outcome(self) -> object:
        """What it returned, or a :class:`Failed`."""

    def cancel(self) -> None:
        """Nobody wants the outcome any more."""


class Engine(Protocol):
    """Workers, and calls that are pinned to one of them."""

    def workers(self) -> Mapping[str, int]:
        """Those that there are at present, and how many calls each takes at a time."""

    def call(self, worker: str, function: Callable[..., object], *given: object) -> Call:
        """Have that worker run it, and no other."""

    def done(self, seconds: float) -> Iterable[Call]:
        """Calls that ended, each once; waits for the first one, ``seconds`` at the most."""


class Calls:
    """Those under way. Each ends once: with its outcome, or as lost when its worker is not there any more."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._then: dict[Call, tuple[str, Callable[[object], None]]] = {}
        self.alive: Mapping[str, int] = engine.workers()

    def __len__(self) -> int:
        return len(self._then)

    def start(
        self, worker: str, then: Callable[[object], None], function: Callable[..., object], *given: object
    ) -> None:
        """``then`` gets the outcome in a later :meth:`step`."""
        self._then[self._engine.call(worker, function, *given)] = worker, then

    def busy(self, worker: str) -> int:
        """How many calls that worker has."""
        return sum(1 for name, _ in self._then.values() if name == worker)

    def step(self) -> None:
        """Look who is there, and wait a moment for outcomes."""
        self.alive = self._engine.workers()
        for call in [call for call, (worker, _) in self._then.items() if worker not in self.alive]:
            call.cancel()
            self._end(call, Failed("its worker ended", lost=True))
        for call in self._engine.done(TICK):
            if call in self._then:  # else it was given up, and its machine is somebody else's
                self._end(call, call.outcome())

    def settle(self, seconds: float) -> None:
        """Steps until all have ended; those that have not after that time are lost."""
        deadline = time.monotonic() + seconds
        while self._then and time.monotonic() < deadline:
            self.step()
        for call in list(self._then):
            call.cancel()
            self._end(call, Failed(f"no answer within {seconds:g} s", lost=True))

    def cancel(self) -> None:
        """Give up all of them."""
        for call in self._then:
            call.cancel()
        self._then.clear()

    def _end(self, call: Call, outcome: object) -> None:
        _, then = self._then.pop(call)
        then(outcome)
