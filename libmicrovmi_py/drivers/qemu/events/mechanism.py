# SPDX-License-Identifier: Apache-2.0
"""What a kind of events is on QEMU: a file in ``mechanisms`` that ends in ``MECHANISM = Class``; nothing else names it.

The core (``listener.py``) places what a mechanism wants placed, asks it what of a stop is to be told, and answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from libmicrovmi_py.declare import TYPE_CHECKING, ClassVar, NamedTuple
from libmicrovmi_py.errors import NotSupportedError
from libmicrovmi_py.events import EventAbilities, Intercept, ReplyAction, Stop

if TYPE_CHECKING:
    from libmicrovmi_py.drivers.qemu.events.placing import Place
    from libmicrovmi_py.drivers.qemu.events.run import Run
    from libmicrovmi_py.drivers.qemu.events.stopped import Stopped


class Unchanged(NamedTuple):
    """Stops that tell nothing: at a watchpoint of one of ``addresses``, with CR3 of every vCPU what ``values`` has by
    vCPU, in the bits of ``mask``. The machine goes on by itself then, and no mechanism hears of it.

    ``values`` is looked at each time that the machine is let go on.
    """

    addresses: frozenset[int]
    mask: int
    values: Mapping[int, int]


class Mechanism:
    """One is made each time the stub is opened. Its methods are called one at a time, and while the machine stands
    unless they say otherwise.

    A :class:`Stop` that stands before an instruction has its address as ``token``, and ``None`` otherwise. The core
    then answers all of them in the same way: CONTINUE executes the instruction, past what is placed there; RETRY goes
    on at the instruction; DENY goes on behind it, by ``instruction_length``, and is refused for the others.
    """

    ABILITIES: ClassVar[EventAbilities]
    """Its part of what the driver can."""

    def __init__(self, machine: Run) -> None:
        self.machine = machine
        self.places: frozenset[Place] = frozenset()
        """What is to be placed now; another object when that changed. The core looks after each call of a method."""
        self.steps: frozenset[int] = frozenset()
        """The vCPUs that stop after their next instruction."""
        self.unchanged: Unchanged | None = None
        """Stops at places of its own that need not be heard."""

    def serves(self, intercept: Intercept) -> bool:
        """Whether an intercept is one of its kind."""
        raise NotImplementedError

    def arm(self, intercept: Intercept, vcpus: frozenset[int]) -> None:
        """As ``SupportsEvents.arm``. Raises ``NotSupportedError`` or ``InvalidArgumentError`` with nothing changed."""
        raise NotImplementedError

    def heard(self, stopped: Stopped) -> Iterable[Stop]:
        """What is to be told of a stop; nothing if it has nothing to do with this mechanism."""
        raise NotImplementedError

    def answer(self, stop: Stop, action: ReplyAction) -> Mapping[str, int]:
        """Registers that an answer to a stop of this mechanism sets, besides those that the caller does.

        Raises ``NotSupportedError`` for an answer that this one stop cannot have.
        """
        return {}

    def before_going(self) -> None:
        """The machine is about to be let run."""

    def idle(self) -> None:
        """Nothing has happened for a while; the machine may be running."""


class Armed:
    """Mechanisms by the intercepts that they serve at present."""

    def __init__(self, machine: Run, kinds: Iterable[type[Mechanism]]) -> None:
        self._all = [kind(machine) for kind in kinds]
        self._by_intercept: dict[Intercept, Mechanism] = {}
        self.active: tuple[Mechanism, ...] = ()
        """Those with an intercept."""
        self.looks = False
        """Whether one of them looks around."""

    def arm(self, intercept: Intercept, vcpus: frozenset[int]) -> None:
        """As ``SupportsEvents.arm``; what is to be placed is not placed by this."""
        mechanism = self.of(intercept)
        if vcpus:
            self._by_intercept[intercept] = mechanism  # before it is tried, as part of it may stay
        elif intercept not in self._by_intercept:
            return
        mechanism.arm(intercept, vcpus)
        if not vcpus:
            del self._by_intercept[intercept]
        self.active = tuple(dict.fromkeys(self._by_intercept.values()))
        self.looks = any(type(mechanism).idle is not Mechanism.idle for mechanism in self.active)

    def of(self, intercept: Intercept) -> Mechanism:
        """Who serves an intercept. Raises ``NotSupportedError``."""
        for mechanism in self._all:
            if mechanism.serves(intercept):
                return mechanism
        raise NotSupportedError(f"events: QEMU cannot stop at {intercept.kind.name} in that way")
