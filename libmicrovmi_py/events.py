# SPDX-License-Identifier: Apache-2.0
"""The words of events: what can be intercepted, what happened, how it is answered, and how a page may be accessed.

The numbers are those of the enums of the same names in ``include/libmicrovmi.h``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from libmicrovmi_py.declare import TYPE_CHECKING, dataclass, field
from libmicrovmi_py.model import U64_MAX

if TYPE_CHECKING:
    from libmicrovmi_py.arch import Registers

ALL_VCPUS = 0xFFFF
"""In place of a vCPU's number: every vCPU."""

UNKNOWN_ADDRESS = U64_MAX
"""An address that the hypervisor does not tell."""


class EventKind(enum.IntEnum):
    """What the guest did; the numbers of ``enum microvmi_event_kind``."""

    CR = 1
    """It writes a control register."""
    MSR = 2
    """It writes a model-specific register."""
    BREAKPOINT = 3
    """It executes a breakpoint."""
    PAGE_ACCESS = 4
    """It accesses a page in a way that was taken from it."""
    SINGLE_STEP = 5
    """It executed one instruction."""


class PageAccess(enum.IntFlag):
    """How the guest may access a page, or did; the numbers of ``enum microvmi_page_access``."""

    NONE = 0
    READ = 1
    WRITE = 2
    EXECUTE = 4
    ALL = 7


class ReplyAction(enum.IntEnum):
    """What becomes of what the guest did; the numbers of ``enum microvmi_reply_action``."""

    CONTINUE = 0
    """It takes its course: the register is written, the exception of a breakpoint is delivered, the access is done."""
    RETRY = 1
    """The vCPU goes on at its instruction pointer, and does it again unless that, or the cause, was changed."""
    DENY = 2
    """The register keeps its value, and the guest goes on behind the instruction."""


@dataclass(frozen=True, slots=True)
class Intercept:
    """What the guest is to be stopped at.

    ``number``: the control register (0, 3, 4) or the index of the MSR; 0 for the other kinds.
    ``address``: BREAKPOINT only. 0: every breakpoint instruction that the guest executes, wherever it is; else the
    guest-virtual address of one that the hypervisor is to place, unseen by the guest.
    """

    kind: EventKind
    number: int = 0
    address: int = 0


class Breakpoints(enum.IntEnum):
    """Which breakpoints a hypervisor stops the guest at; the numbers of ``enum microvmi_breakpoints``."""

    OWN = 1
    """Every breakpoint instruction that the guest executes: an intercept of address 0."""
    PLACED = 2
    """One that the hypervisor places, unseen by the guest: an intercept with an address."""


@dataclass(frozen=True, slots=True)
class EventAbilities:
    """What an instance of a driver can stop vCPUs at, as data.

    ``kinds``: the answers that each kind allows, CONTINUE always. ``breakpoints``: which, if that is one of the kinds.
    ``why_not``: one line, why there are no kinds, or why one is missing.
    """

    kinds: Mapping[EventKind, frozenset[ReplyAction]]
    breakpoints: frozenset[Breakpoints] = frozenset()
    why_not: str = ""


NO_EVENTS = EventAbilities({})
"""Of a driver that stops at nothing."""


@dataclass(frozen=True, slots=True)
class Stop:
    """What made a vCPU stand, as a driver tells it: the members of :class:`Event`, and what is between us and it.

    ``placed_at``: BREAKPOINT only, the address of the intercept; 0 for an instruction of the guest's own.
    ``waits``: whether the vCPU stands until it is answered; else it goes on by itself.
    ``token``: whatever the driver needs for the answer.
    """

    kind: EventKind
    vcpu: int
    number: int = 0
    old_value: int = 0
    new_value: int = 0
    physical_address: int = UNKNOWN_ADDRESS
    virtual_address: int = UNKNOWN_ADDRESS
    access: PageAccess = PageAccess.NONE
    instruction_length: int = 0
    placed_at: int = 0
    waits: bool = True
    token: object = field(default=None, compare=False, repr=False)

    @property
    def intercept(self) -> Intercept:
        """What it was stopped at."""
        return Intercept(self.kind, self.number, self.placed_at)

    def event(self, identifier: int) -> Event:
        """As an event of that id."""
        written = self.number, self.old_value, self.new_value
        place = self.physical_address, self.virtual_address, self.access
        return Event(identifier, self.kind, self.vcpu, *written, *place, self.instruction_length)


@dataclass(frozen=True, slots=True)
class Event:
    """What a vCPU did, which is stopped until the event is answered.

    ``id`` names it for the answer, unique among the machine's. CR and MSR: ``number``, ``old_value`` (0 where it is
    not told) and ``new_value``. BREAKPOINT and SINGLE_STEP: the addresses are those of the instruction. PAGE_ACCESS:
    both are those of the memory, ``access`` is what was tried. ``instruction_length``: bytes, 0 if unknown.
    """

    id: int
    kind: EventKind
    vcpu: int
    number: int = 0
    old_value: int = 0
    new_value: int = 0
    physical_address: int = UNKNOWN_ADDRESS
    virtual_address: int = UNKNOWN_ADDRESS
    access: PageAccess = PageAccess.NONE
    instruction_length: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """How an event is answered; ``registers`` become the vCPU's, ``None`` leaves them as they are."""

    action: ReplyAction = ReplyAction.CONTINUE
    registers: Registers | None = None
