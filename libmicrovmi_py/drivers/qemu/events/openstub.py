# SPDX-License-Identifier: Apache-2.0
"""What there is while the stub is open: the machine, the mechanisms, what is told, and who had the machine stand."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.drivers.control import Phase
from libmicrovmi_py.drivers.qemu import stops
from libmicrovmi_py.drivers.qemu.events.answers import Answers
from libmicrovmi_py.drivers.qemu.events.finding import all_mechanisms
from libmicrovmi_py.drivers.qemu.events.mechanism import Armed, Mechanism
from libmicrovmi_py.drivers.qemu.events.opening import Opened
from libmicrovmi_py.drivers.qemu.events.run import Run
from libmicrovmi_py.drivers.qemu.events.watched import Watched
from libmicrovmi_py.transport.qmp import QmpClient

if TYPE_CHECKING:
    from libmicrovmi_py.drivers.guestmemory import GuestMemory
    from libmicrovmi_py.drivers.qemu.events.mechanism import Unchanged

IDLE = 0.2
"""Seconds between two looks around."""


class OpenStub:
    """What there is as long as the stub is open."""

    def __init__(
        self,
        opened: Opened,
        watched: Watched,
        indexes: list[int],
        client: Callable[[], AbstractContextManager[QmpClient]],
        memory: GuestMemory | None,
    ) -> None:
        self.link, self.watched = opened.link, watched
        self.run = Run(opened.link, indexes, watched, client, memory)
        self.armed = Armed(self.run, all_mechanisms())
        self.answers = Answers(self.run)
        self.others = not opened.ran
        """Whether somebody else had the machine stand."""
        self._next_look = 0.0
        self._unchanged: Unchanged | None = None

    def place(self) -> None:
        """What the mechanisms want placed now."""
        active = self.armed.active
        self.run.steps = frozenset().union(*(mechanism.steps for mechanism in active))
        sets = [mechanism.places for mechanism in active]
        passing = next((each for each in active if each.unchanged), None)
        unchanged = passing.unchanged if passing else None
        if unchanged is not self._unchanged or not self.run.places.are(sets):
            self.run.places.follow(sets)
            self._unchanged = unchanged
            self.run.pass_over(unchanged if passing and self._alone(passing) else None)

    def _alone(self, mechanism: Mechanism) -> bool:
        """Whether nobody else wants to hear of the stops that it does not."""
        addresses = mechanism.unchanged.addresses if mechanism.unchanged else ()
        others = (each.places for each in self.armed.active if each is not mechanism)
        return not any(place.address in addresses for places in others for place in places)

    @property
    def is_due(self) -> bool:
        """Whether it is time to look around, and somebody does: mechanisms, or we, for who had the machine stand."""
        return time.monotonic() >= self._next_look and (self.others or self.armed.looks)

    def idle(self, client: QmpClient) -> bool:
        """Look around; whether the machine has to be stopped, for others let it run, or something is to be placed."""
        self._next_look = time.monotonic() + IDLE
        for mechanism in self.armed.active:
            mechanism.idle()
        if self.was_let_run(client):
            return True
        return not self.run.places.are(mechanism.places for mechanism in self.armed.active)

    def was_let_run(self, client: QmpClient) -> bool:
        """Whether somebody else has stopped the machine and it ran again since, which the stub does not tell.

        It may stand at what is placed since then: newer versions tell one stop for each time that we let it go on.
        """
        if not self.others:
            return False
        status = client.ask("query-status")
        word = stops.word(status)
        if word != "debug" and stops.run_state(word).phase is not Phase.RUNS:
            return False
        self.others, self.run.runs = False, word != "debug"
        if word == "debug":
            self.run.find_untold()
        self.watched.ran(True)
        return True
