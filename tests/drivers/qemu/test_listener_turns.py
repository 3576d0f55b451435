# SPDX-License-Identifier: Apache-2.0
"""Turns with a machine: who waits for the machine for long gives way at once to whoever else wants it."""

from __future__ import annotations

import threading
import time

from libmicrovmi_py.drivers.qemu.events.turns import Turns

LONG = 60.0


class Waiting:
    """A thread that waits for the machine again and again, each time for long, until it is told to end."""

    def __init__(self, turns: Turns) -> None:
        self.waits = 0
        self.ended = False
        self._turns = turns
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self.ended:
            with self._turns.last():
                self._turns.wait(self._work, LONG, self._wake.set)

    def _work(self, seconds: float) -> None:
        self.waits += 1
        if not self.ended and self._wake.wait(seconds):
            self._wake.clear()

    def __enter__(self) -> Waiting:
        self._thread.start()
        while not self.waits:
            time.sleep(0.001)
        return self

    def __exit__(self, *error: object) -> None:
        with self._turns:
            self.ended = True
        self._thread.join()


def test_who_waits_for_long_gives_way_each_time() -> None:
    turns = Turns()
    started = time.monotonic()
    with Waiting(turns):
        for _ in range(200):
            with turns, turns:
                pass
    assert time.monotonic() - started < LONG


def test_nobody_else_has_the_turn_meanwhile() -> None:
    turns, inside = Turns(), []
    with Waiting(turns) as waiting:
        for _ in range(20):
            with turns:
                before = waiting.waits
                time.sleep(0.002)
                inside.append(waiting.waits - before)
    assert inside == [0] * 20


def test_what_is_asked_for_without_anybody_waiting_is_awaited() -> None:
    turns = Turns()
    with turns.last():
        assert turns.wait(lambda seconds: seconds, 0.5, lambda: None) == 0.5
