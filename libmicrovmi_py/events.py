# SPDX-License-Identifier: Apache-2.0
"""The words of events: what can be intercepted, what happened, how it is answered, and how a page may be accessed.

The numbers are those of the enums of the same names in ``include/libmicrovmi.h``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from libmicrovmi_py.declare import TYPE_CHECKING, dataclass, field
from libmicrovmi_py.errors import InvalidArgumentError
from libmicrovmi_py.model import U64_MAX

if TYPE_CHECKING:
    from libmicrovmi_py.arch import Registers

ALL_VCPUS = 0xFFFF
"""In place of a vCPU's number: every vCPU."""

UNKNOWN_VCPU = 0xFFFF
"""Of an event: it is not told which vCPU did it."""

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
    VIRTUAL_ACCESS = 6
    """It accesses memory in a range of guest-virtual addresses; a read or a write is told when it was done."""


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


class InterceptFlag(enum.IntFlag):
    """How an intercept works; the numbers of ``enum microvmi_intercept_flag``."""

    NONE = 0
    EVERY_WRITE = 1
    """CR 3: every write, before the guest goes on with it. Without it: changes of the address space, told after."""
    OBSERVE = 2
    """CR: nothing stops, and an event waits for no answer."""
    HARDWARE = 4
    """BREAKPOINT at an address: by the processor, so that no byte of the guest is changed while it is set."""


ALL_FLAGS = InterceptFlag.EVERY_WRITE | InterceptFlag.OBSERVE | InterceptFlag.HARDWARE


def check_flags(bits: int) -> InterceptFlag:
    """Bits of ``enum microvmi_intercept_flag``; others are an ``InvalidArgumentError``."""
    if not 0 <= bits <= ALL_FLAGS:
        raise InvalidArgumentError(f"flags are {bits:#x}: not made of every write (1), observe (2) and hardware (4)")
    return InterceptFlag(bits)


class Stands(enum.IntEnum):
    """What stands still until an event is answered; the numbers of ``enum microvmi_stands``."""

    NOTHING = 0
    """It waits for no answer."""
    VCPU = 1
    """The vCPU that did it; the others run on."""
    MACHINE = 2
    """All vCPUs."""


@dataclass(frozen=True, slots=True)
class Intercept:
    """What the guest is to be stopped at. Those that differ in any member are different ones.

    ``number``: the control register (0, 3, 4) or the index of the MSR; 0 for the other kinds.
    ``address``: BREAKPOINT: 0 for every breakpoint instruction that the guest executes, wherever it is; else the
    guest-virtual address of one that the hypervisor is to place, unseen by the guest. VIRTUAL_ACCESS: where the range
    begins; ``size`` is its bytes, ``access`` what is told of, READ, WRITE and EXECUTE. ``flags``: see there.
    """

    kind: EventKind
    number: int = 0
    address: int = 0
    size: int = 0
    access: PageAccess = PageAccess.NONE
    flags: InterceptFlag = InterceptFlag.NONE


class Breakpoints(enum.IntEnum):
    """Which breakpoints a hypervisor stops the guest at; the numbers of ``enum microvmi_breakpoints``."""

    OWN = 1
    """Every breakpoint instruction that the guest executes: an intercept of address 0."""
    PLACED = 2
    """One that the hypervisor places, unseen by the guest: an intercept with an address."""


@dataclass(frozen=True, slots=True)
class EventAbilities:
    """What an instance of a driver can stop vCPUs at, as data.

    ``kinds``: the answers that each kind allows, CONTINUE always; one stop may allow fewer. ``breakpoints``: which, if
    that is one of the kinds. ``why_not``: one line, why there are no kinds, or why one is missing. ``flags``: those
    that an intercept of a kind can have. ``implied``: of these, the ones that change nothing, as the hypervisor has no
    other way; the driver is armed without them. ``stands``: what does at a stop that waits for an answer.
    """

    kinds: Mapping[EventKind, frozenset[ReplyAction]]
    breakpoints: frozenset[Breakpoints] = frozenset()
    why_not: str = ""
    flags: Mapping[EventKind, InterceptFlag] = field(default_factory=dict)
    implied: InterceptFlag = InterceptFlag.NONE
    stands: Stands = Stands.VCPU


NO_EVENTS = EventAbilities({})
"""Of a driver that stops at nothing."""


@dataclass(frozen=True, slots=True)
class Stop:
    """What made a vCPU stand, as a driver tells it: the members of :class:`Event`, and what is between us and it.

    ``placed_at``: BREAKPOINT only, the address of the intercept; 0 for an instruction of the guest's own.
    ``waits``: whether it stands until it is answered; else it goes on by itself, or never stood.
    ``token``: whatever the driver needs for the answer. ``told_by``: the intercept, where the other members do not say
    which. ``answers``: those that this stop allows, ``None`` for all of its kind.
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
    told_by: Intercept | None = None
    instruction_pointer: int = UNKNOWN_ADDRESS
    lost: int = 0
    answers: frozenset[ReplyAction] | None = None

    @property
    def intercept(self) -> Intercept:
        """What it was stopped at."""
        return self.told_by or Intercept(self.kind, self.number, self.placed_at)

    def event(self, identifier: int, stands: Stands) -> Event:
        """As an event of that id, at which that stands if it waits for an answer."""
        written = self.number, self.old_value, self.new_value
        place = self.physical_address, self.virtual_address, self.access
        at = self.instruction_length, self.instruction_pointer
        stands = stands if self.waits else Stands.NOTHING
        return Event(identifier, self.kind, self.vcpu, *written, *place, *at, stands, self.lost)


@dataclass(frozen=True, slots=True)
class Event:
    """What a vCPU did. ``stands`` is what does until the event is answered.

    ``id`` names it for the answer, unique among the machine's. CR and MSR: ``number``, ``old_value`` (0 where it is
    not told) and ``new_value``. BREAKPOINT and SINGLE_STEP: the addresses are those of the instruction. PAGE_ACCESS:
    both are those of the memory, ``access`` is what was tried. VIRTUAL_ACCESS: the same, ``access`` was done (an
    execution is about to be), and the address is the range's where none is told. ``instruction_length``: bytes, 0 if
    unknown. ``instruction_pointer``: where the vCPU goes on. ``lost``: events of the intercept that were lost right
    before this one; only one that observes loses any.
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
    instruction_pointer: int = UNKNOWN_ADDRESS
    stands: Stands = Stands.VCPU
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """How an event is answered; ``registers`` become the vCPU's, ``None`` leaves them as they are."""

    action: ReplyAction = ReplyAction.CONTINUE
    registers: Registers | None = None
