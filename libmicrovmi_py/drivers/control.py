# SPDX-License-Identifier: Apache-2.0
"""The part of the driver contract that is about stopping a machine and letting it run."""

from __future__ import annotations

import enum
from contextlib import AbstractContextManager

from libmicrovmi_py.declare import Protocol, dataclass, runtime_checkable


class Phase(enum.Enum):
    """What a machine is doing, as far as that matters to who wants to stop it or to let it run."""

    RUNS = enum.auto()
    """Its vCPUs run, or may do so at any time of themselves."""
    STOPPED = enum.auto()
    """It stands as :meth:`SupportsPause.stop` makes it stand, whoever did it."""
    HALTED = enum.auto()
    """It stands for another reason, and goes on when its user wants that."""
    PASSING = enum.auto()
    """Somebody is in the middle of something, such as saving it: what it was before it is again a moment later."""


@dataclass(frozen=True, slots=True)
class RunState:
    """The run state of a machine. ``no_pause`` and ``no_resume`` are one line each: why a pause would be none, and
    why it must not be let run; ``""`` where nothing is in the way."""

    phase: Phase
    no_pause: str = ""
    no_resume: str = ""


RUNS = RunState(Phase.RUNS)
STOPPED = RunState(Phase.STOPPED)


@runtime_checkable
class SupportsPause(Protocol):
    """Stopping and running the machine. A driver only translates: who stopped it and who may let it run is told above.

    Each of the three asks the hypervisor where that tells anything, and raises ``VmGoneError`` for a machine that ended
    or is somewhere else now.
    """

    def run_state(self) -> RunState:
        """What the machine does now."""

    def stop(self) -> None:
        """Stop all vCPUs of a machine that runs, and return when they stand; one that stands already stays so.

        Raises ``TimeoutExpiredError`` or ``DriverUnavailableError`` where nobody knows what became of the order, and
        another error where nothing was stopped.
        """

    def run(self, *, whoever: bool) -> None:
        """Let all vCPUs run; a machine that runs stays so.

        ``whoever``: whoever stopped them. Otherwise what :meth:`stop` did is taken back and no more, which leaves the
        machine as it is if others want it to stand, or if it is not :attr:`Phase.STOPPED`.
        """


@runtime_checkable
class SupportsSessions(Protocol):
    """Asking the hypervisor several things over one connection, where a connection takes time."""

    def session(self) -> AbstractContextManager[None]:
        """While it lasts, what this thread asks goes over one connection, which is made when it is first needed.

        Others may be waiting for it all the time: a caller's call is the longest. Sessions may be within each other.
        """

    def leave_session(self) -> None:
        """Let others have their turn, in a session that goes on and makes another connection when it needs one."""


@runtime_checkable
class SupportsLateRun(Protocol):
    """Leaving an order with a machine that does not answer."""

    def run_later(self) -> None:
        """Leave the order to take :meth:`SupportsPause.stop` back where the machine finds it when it goes on, also
        after the end of this process. Nothing is left, and nothing raised, where that cannot be done."""
