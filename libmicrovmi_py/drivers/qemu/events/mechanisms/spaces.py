# SPDX-License-Identifier: Apache-2.0
"""Changes of the address space, told when they are done.

A breakpoint at each instruction that writes CR3 finds all of them, and is slow. So what is written after each change by
the one instruction that the kernel changes processes with is looked for, and proven (``trial.py``): a variable of each
vCPU's own. It is watched, and that one breakpoint goes; the others stay, as what is never executed costs nothing.

At each stop of the machine, whoever it is for, CR3 of every vCPU is compared with what it was: nothing else tells a
change. Two vCPUs that come to a stop in the same moment make one in QEMU, and nothing else would tell of the second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from libmicrovmi_py.arch.x86.paging import page_tables, twin_tables
from libmicrovmi_py.drivers.qemu.events.codewatch import read_up_to, space_of
from libmicrovmi_py.drivers.qemu.events.instructions import LONGEST, Target
from libmicrovmi_py.drivers.qemu.events.mechanism import Mechanism, Unchanged
from libmicrovmi_py.drivers.qemu.events.placing import BREAKPOINT, WRITES, Place
from libmicrovmi_py.drivers.qemu.events.run import Run
from libmicrovmi_py.drivers.qemu.events.stopped import OVER, Stopped
from libmicrovmi_py.drivers.qemu.events.stores import per_vcpu_store, rewrites_itself
from libmicrovmi_py.drivers.qemu.events.trial import Trial
from libmicrovmi_py.errors import NotMappedError, NotSupportedError, logger
from libmicrovmi_py.events import EventAbilities, EventKind, Intercept, InterceptFlag, ReplyAction, Stop
from libmicrovmi_py.model import U64_MAX
from libmicrovmi_py.paging import PageTables

_log = logger(__name__)

_CR3 = Target(EventKind.CR, 3)
_ANSWERS = frozenset((ReplyAction.CONTINUE,))

_TABLES = 0x000F_FFFF_FFFF_F000
"""Bits of CR3 that say which address space it is."""
_TWIN = 0x1000
"""The one that tells the two of a process apart under KPTI: one that the kernel has, and one that the process has."""

_PAGING, _KERNEL_HALF = 1 << 31, 1 << 63
_FAR = 80
"""Instructions behind a change in which the store is looked for."""

_MOST_BASES = 4
_TOGGLES = 3
"""Hits without a change after which an instruction of KPTI's way in and out is known as one."""


class SpaceChanges(Mechanism):
    """Those of the vCPUs that are wanted; all are followed."""

    ABILITIES = EventAbilities({EventKind.CR: _ANSWERS})

    def __init__(self, machine: Run) -> None:
        super().__init__(machine)
        self._intercept: Intercept | None = None
        self._wanted: frozenset[int] = frozenset()
        self._mask = _TABLES
        self._last: dict[int, int] = {}  # CR3 by vCPU
        self._bases: dict[int, list[int]] = {}  # by vCPU: where its variables are
        self._at: dict[int, tuple[int, int]] = {}  # by vCPU: the site that it is to be led over, and CR3 before
        self._sites: frozenset[int] = frozenset()
        self._still: set[int] = set()  # sites that change nothing
        self._toggles: Counter[int] = Counter()
        self._proven: dict[int, int] = {}  # the variable by site
        self._unproven: set[int] = set()
        self._trial: Trial | None = None
        self._edition = 0  # of the code, for which it is placed

    def serves(self, intercept: Intercept) -> bool:
        """CR3 without a flag."""
        return (intercept.kind, intercept.number, intercept.flags) == (*_CR3, InterceptFlag.NONE)

    def arm(self, intercept: Intercept, vcpus: frozenset[int]) -> None:
        """As the mechanism's."""
        if vcpus and self._intercept is None:
            self.machine.code.begin()
            self._begin()
        self._intercept, self._wanted = (intercept if vcpus else None), vcpus
        self._place()

    def _begin(self) -> None:
        self._last = {vcpu: self.machine.registers(vcpu)["cr3"] for vcpu in self.machine.vcpus}
        self._at.clear()
        self._trial = None
        self._mask = _TABLES & ~_TWIN if any(self._user_tables(vcpu) for vcpu in self.machine.vcpus) else _TABLES
        self._take_sites()
        for vcpu in self.machine.vcpus:
            self._learn_base(vcpu)

    def _user_tables(self, vcpu: int) -> PageTables | None:
        """The tables that KPTI leaves a process; ``None`` without it."""
        registers = self.machine.registers(vcpu)
        if not registers["cr0"] & _PAGING or self.machine.memory is None:
            return None
        tables = page_tables(registers)
        try:
            twin = twin_tables(tables._replace(base=tables.base & _TABLES), self.machine.memory.read)
        except (NotSupportedError, NotMappedError):
            return None
        return twin._replace(base=twin.base | _TWIN)

    # ------------------------------------------------------------------------------------------------ what is placed

    def _place(self) -> None:
        self._edition = self.machine.code.edition
        places = frozenset(self._places()) if self._intercept else frozenset()
        if places != self.places:
            self.places = places
        unchanged = None
        if self._intercept and self._trial is None:
            unchanged = Unchanged(frozenset(self._variables()), self._mask, self._last)
        if unchanged != self.unchanged:
            self.unchanged = unchanged

    def _places(self) -> Iterator[Place]:
        followed = {vcpu for vcpu in self.machine.vcpus if self._bases.get(vcpu)}
        all_followed = followed >= {vcpu for vcpu in self.machine.vcpus if self._runs(vcpu)}
        quiet = self._still | (self._proven.keys() if all_followed else set())
        yield from (Place(BREAKPOINT, site) for site in self._sites - quiet)
        yield from (Place(WRITES, address) for address in self._variables())
        yield from self.machine.code.places

    def _runs(self, vcpu: int) -> bool:
        """Whether it has an address space."""
        return bool(self.machine.registers(vcpu)["cr0"] & _PAGING)

    def _variables(self) -> dict[int, tuple[int, int]]:
        """The addresses that are watched: whose variable it is, and which."""
        offsets = set(self._proven.values()) | (self._trial.offsets if self._trial else set())
        return {
            (base + offset) & U64_MAX: (vcpu, offset)
            for vcpu, bases in self._bases.items()
            for base in bases
            for offset in offsets
        }

    def _take_sites(self) -> None:
        """Where CR3 is written, as far as it is known now; where code has gone all begins anew."""
        sites = self.machine.code.sites.get(_CR3, frozenset())
        if sites == self._sites:
            return
        if not sites >= self._sites:
            self._proven.clear()
            self._bases.clear()
            self._trial = None
        self._still &= sites
        self._unproven &= sites
        self._still |= {site for site in sites - self._sites if self._rewrites_itself(site)}
        self._sites = sites

    def _rewrites_itself(self, site: int) -> bool:
        data = self._code(self.machine.vcpus[0], site - 4, 4 + LONGEST)
        return rewrites_itself(data[:4], data[4:])

    def _code(self, vcpu: int, address: int, size: int) -> bytes:
        """As far as it is mapped."""
        assert self.machine.memory is not None
        return read_up_to(space_of(self.machine.memory, self.machine.registers(vcpu)), address, size)

    # ------------------------------------------------------------------------------------------------- what is heard

    def heard(self, stopped: Stopped) -> Iterable[Stop]:
        """Of each vCPU whose address space is another than before."""
        self.machine.code.heard(stopped)
        self._take_sites()
        self._note(stopped)
        told = [*self._changes()]
        if stopped.reason == OVER and self._passed(stopped.vcpu):
            told += self._changes()
        if not self._is_settled(stopped):
            self._place()
        return told

    def _is_settled(self, stopped: Stopped) -> bool:
        """Whether a stop is at what is watched for good, and the code is what it was: nothing else is to be placed."""
        name, _, address = stopped.reason.partition(":")
        if self.unchanged is None or self._edition != self.machine.code.edition or name != "watch":
            return False
        return int(address, 16) in self.unchanged.addresses

    def _changes(self) -> Iterator[Stop]:
        for vcpu in self.machine.vcpus:
            new, old = self.machine.cr3(vcpu), self._last[vcpu]
            if not (new ^ old) & self._mask:
                continue
            registers = self.machine.registers(vcpu)
            if not registers["cr0"] & _PAGING:
                continue
            self._last[vcpu] = new
            if vcpu in self._wanted:
                yield self._stop(vcpu, old, registers)

    def _stop(self, vcpu: int, old: int, registers: Mapping[str, int]) -> Stop:
        """Of KPTI's two tables of a process the kernel's."""
        twin = _TABLES & ~self._mask
        return Stop(
            EventKind.CR,
            vcpu,
            _CR3.number,
            old & ~twin,
            registers["cr3"] & ~twin,
            instruction_pointer=registers["rip"],
            told_by=self._intercept,
            answers=_ANSWERS,
        )

    def _note(self, stopped: Stopped) -> None:
        """Who is about to execute which of the instructions, and who wrote what is watched."""
        for vcpu, address in stopped.arrivals():
            self._at.pop(vcpu, None)
            if address in self._sites:
                self._at[vcpu] = address, self._last[vcpu]
        trial = self._trial
        if trial is None or not stopped.trapped:
            return
        trial.stopped(stopped.vcpu)
        name, _, place = stopped.reason.partition(":")
        owner = self._variables().get(int(place, 16)) if name == "watch" else None
        if owner is not None and owner[0] == stopped.vcpu:
            trial.written(*owner)

    # -------------------------------------------------------------------------------------------- what is found out

    def _passed(self, vcpu: int) -> bool:
        """A vCPU has executed what it stood at; whether it was stepped further."""
        site, before = self._at.pop(vcpu, (0, 0))
        if not site:
            return False
        self._learn_base(vcpu)
        if not (self._last[vcpu] ^ before) & self._mask:
            self._look_at_toggle(vcpu, site)
            return False
        began = (
            self._trial is None
            and not (site in self._proven or site in self._unproven)
            and self._begin_trial(site, vcpu)
        )
        if self._trial is not None and self._trial.site == site:
            self._trial.changed(vcpu)
        self._judge()
        return began

    def _begin_trial(self, site: int, vcpu: int) -> bool:
        """Whether it began by steps. While data is watched, but for page tables, nobody is stepped: QEMU may execute
        twice what accesses a page that is watched. What is watched already is tried then."""
        watched = bool(self.machine.places.watches - self.machine.code.places)
        if self.machine.steps or (watched and not self._proven):
            return False
        self._trial = Trial(site, self._proven.values() if watched else self._stores(vcpu))
        return not watched

    def _judge(self) -> None:
        trial = self._trial
        if trial is None or not trial.over:
            return
        self._trial = None
        offset = trial.result(self._proven.values())
        if offset is None:
            self._unproven.add(trial.site)
            _log.warning("no variable tells of changes of the address space at %#x: it takes a breakpoint", trial.site)
        else:
            self._proven[trial.site] = offset

    def _look_at_toggle(self, vcpu: int, site: int) -> None:
        """KPTI's way into the kernel and out of it is in what a process has of the kernel, and nothing else is."""
        tables = self._user_tables(vcpu)
        if tables is None or self.machine.memory is None:
            return
        self._toggles[site] += 1
        if (
            self._toggles[site] >= _TOGGLES
            and self.machine.memory.space(tables).translate(site).physical_address is not None
        ):
            self._still.add(site)

    def _stores(self, vcpu: int) -> Iterator[int]:
        """The variables that a vCPU stores into next, by stepping it."""
        for address in self._steps(vcpu):
            offset = per_vcpu_store(self._code(vcpu, address, LONGEST), address)
            if offset is not None:
                yield offset

    def _learn_base(self, vcpu: int) -> None:
        """Where its variables are; one that has just begun has none yet."""
        known, base = self._bases.setdefault(vcpu, []), _base(self.machine.registers(vcpu))
        if base and base not in known and len(known) < _MOST_BASES:
            known.append(base)

    def _steps(self, vcpu: int) -> Iterator[int]:
        """Where it stands, then step it, up to so many times; not where others would have been told."""
        for _ in range(_FAR):
            address = self.machine.registers(vcpu)["rip"]
            yield address
            if self.machine.steps or address in self.machine.places.instructions or not self.machine.step(vcpu):
                return

    def before_going(self) -> None:
        """As the mechanism's."""
        if self._intercept:
            self.machine.code.before_going()
            self._follow()

    def idle(self) -> None:
        """Code may have been written in place."""
        if self._intercept:
            self.machine.code.idle()
            self._follow()

    def _follow(self) -> None:
        if self._edition != self.machine.code.edition:
            self._take_sites()
            self._place()


def _base(registers: Mapping[str, int]) -> int:
    """Where the variables of a vCPU are: its GS in the kernel, kept aside while it is not there; 0: nowhere."""
    order = ("kernel_gs_base",) if registers["cs_selector"] & 3 else ("gs_base", "kernel_gs_base")
    return next((registers[name] for name in order if registers[name] & _KERNEL_HALF), 0)


MECHANISM = SpaceChanges
