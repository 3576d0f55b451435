# SPDX-License-Identifier: Apache-2.0
"""What a stand tells the contract test about the machine that it set up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from libmicrovmi_py import Microvmi
from libmicrovmi_py.events import EventKind, Intercept, ReplyAction


class Way(NamedTuple):
    """Another way to be told of a kind: an intercept, having the vCPU do that once, and how it can be answered.

    What ``provoke`` returns are members of the event that are known; no answers: it waits for none.
    """

    intercept: Intercept
    provoke: Callable[[], Mapping[str, int]]
    answers: frozenset[ReplyAction]


class Guest(Protocol):
    """What a stand has its machine's first vCPU do, so that events happen, and what is left of it.

    ``page``: the address of a page whose accesses can be taken. The machine is the one that listens; whoever plays the
    guest from outside does not need it. ``ways``: beside what :meth:`intercept` names, so that all flags, breakpoints
    and accesses are there that the driver has.
    """

    page: int

    @property
    def ways(self) -> Sequence[Way]: ...

    def intercept(self, kind: EventKind) -> Intercept:
        """What stops the guest at what :meth:`provoke` has it do."""

    def provoke(self, kind: EventKind) -> Mapping[str, int]:
        """Have the vCPU do it once, or see it do it anyway: a page access writes to ``page``.

        Returns members of the event that the stand knows. It comes a moment later, if it is intercepted.
        """

    def value(self, kind: EventKind, machine: Microvmi) -> int:
        """CR and MSR: what the register holds, when the vCPU has gone on from what was provoked last."""

    def left(self, machine: Microvmi) -> int:
        """By the hypervisor's own account, how much is armed, taken from pages or waits for an answer; 0: nothing."""


@dataclass(frozen=True, slots=True)
class Target:
    """A machine whose memory is known.

    ``uri`` opens it. ``pieces`` is everything that exists: guest-physical start address -> the bytes from there on;
    frames in between do not exist. ``writable`` is whether the test may write memory. ``guest`` makes events happen,
    for a driver that has any.
    """

    uri: str
    pieces: dict[int, bytes]
    writable: bool
    guest: Guest | None = None


@dataclass(frozen=True, slots=True)
class Failing:
    """A machine that a hypervisor fails in the middle of: accesses to some of its frames end with an I/O error.

    ``pieces`` is all that exists, the frames that fail included. The frame that starts at ``unreadable`` cannot be
    read, the one at ``unwritable`` cannot be written; ``None``: the driver has no such failures. The 20 frames in front
    of them are well. ``exact`` is whether the driver knows how far it got, else it may tell less. ``failing()`` is
    a block in which it does, of a machine that is open.
    """

    uri: str
    pieces: dict[int, bytes]
    unreadable: int | None = None
    unwritable: int | None = None
    exact: bool = True
    failing: Callable[[], AbstractContextManager[None]] = nullcontext
