# SPDX-License-Identifier: Apache-2.0
"""The guest's code while something is to be found in it: at the beginning, and whenever code may have appeared."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping

from libmicrovmi_py.arch.x86.paging import page_tables
from libmicrovmi_py.arch.x86.registers import EFER_LMA
from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.drivers.qemu.events.code import Code, Sites, with_twins
from libmicrovmi_py.drivers.qemu.events.codetables import CodeTables
from libmicrovmi_py.drivers.qemu.events.instructions import LONGEST, Instruction, decode
from libmicrovmi_py.drivers.qemu.events.placing import Place
from libmicrovmi_py.drivers.qemu.infotext import by_vcpu, parse_x86_core
from libmicrovmi_py.errors import MicrovmiError, NotMappedError, NotSupportedError, logger
from libmicrovmi_py.model import PAGE_SIZE
from libmicrovmi_py.paging import PageTables, Paging
from libmicrovmi_py.transport.deadline import limited

if TYPE_CHECKING:
    from libmicrovmi_py.drivers.guestmemory import GuestMemory, GuestSpace
    from libmicrovmi_py.drivers.qemu.events.run import Run
    from libmicrovmi_py.drivers.qemu.events.stopped import Stopped

_log = logger(__name__)

_BASE = 0x000F_FFFF_FFFF_FFE0
"""Of CR3: where the tables are; without the number of the process's translations."""

BRIEF = 0.3
"""Seconds that the monitor may take while nobody waits for it: who has it meanwhile may be waiting for us."""

_EVERY, _SHARE = 1.0, 20
"""Seconds after which all code is looked at anew: what was written in place is found by that alone. It takes one part
in so many of the time at the most."""


class CodeWatch:
    """One is shared by all who look for instructions. The machine stands, but for :meth:`idle`."""

    def __init__(self, machine: Run) -> None:
        self._machine = machine
        self._code: Code | None = None
        self._tables: CodeTables | None = None
        self._seen: Stopped | None = None
        self._unsure = False
        self._due = 0.0
        self.edition = 0
        """Another number when sites or places are not those that they were."""

    @property
    def sites(self) -> Sites:
        """Where instructions may begin, as of the last look."""
        return self._code.sites if self._code else {}

    @property
    def places(self) -> frozenset[Place]:
        """What is to be placed to hear of new code."""
        return self._tables.places if self._tables else frozenset()

    def begin(self) -> None:
        """Look at all of it. Raises ``NotSupportedError`` for a guest of which not all can be found."""
        if self._machine.memory is None:
            raise NotSupportedError("the guest's instructions cannot be found: its memory is not known here")
        if self._code is None or self._tables is None:
            self._code, self._tables = Code(self._machine.memory), CodeTables(self._machine.memory)
        self._look(self._machine.memory, [self._machine.registers(vcpu) for vcpu in self._machine.vcpus], anew=True)

    def _look(self, memory: GuestMemory, vcpus: Iterable[Mapping[str, int]], *, anew: bool) -> None:
        assert self._code is not None
        assert self._tables is not None
        spaces = with_twins(_spaces(vcpus), memory)
        self._due = time.monotonic() + _EVERY
        changed = self._code.look(spaces, anew=anew)
        changed = self._tables.find(spaces, self._code.ranges) or changed
        self.edition += changed

    def heard(self, stopped: Stopped) -> None:
        """Look again if the guest changed page tables of code. Asked by each who shares this, it looks once a stop."""
        if self._tables is None or stopped is self._seen or not stopped.reason or self._is_elsewhere(stopped):
            return
        self._seen = stopped
        self._look_if_changed()

    def _is_elsewhere(self, stopped: Stopped) -> bool:
        """Whether the only vCPU did nothing but write something else; another may have come to a table as well."""
        name, _, address = stopped.reason.partition(":")
        if name != "watch" or len(self._machine.vcpus) > 1 or self._tables is None:
            return False
        return int(address, 16) & -PAGE_SIZE not in self._tables.pages

    def _look_if_changed(self) -> None:
        memory, vcpus = self._machine.memory, self._machine.vcpus
        if memory is not None and self._tables is not None and self._tables.changed():
            self._try(memory, [self._machine.registers(vcpu) for vcpu in vcpus], anew=False)

    def before_going(self) -> None:
        """What was found while the machine ran is placed now: what the guest did until then was not heard of."""
        if self._unsure:
            self._unsure = False
            self._look_if_changed()

    def idle(self) -> None:
        """Look at all of it anew if it is time, while the machine runs."""
        memory = self._machine.memory
        if self._code is None or memory is None or time.monotonic() < self._due or not self._machine.runs:
            return
        self._due = time.monotonic() + _EVERY
        try:
            with limited(BRIEF):
                vcpus = printed(self._machine)
        except MicrovmiError as err:
            _log.warning("the guest's code is not looked at: %s", err)
        else:
            before = self.edition
            began = time.monotonic()
            self._try(memory, vcpus, anew=True)
            self._due += _SHARE * (time.monotonic() - began)
            self._unsure = before != self.edition

    def _try(self, memory: GuestMemory, vcpus: Collection[Mapping[str, int]], *, anew: bool) -> None:
        """What cannot be told of any more stays as it was, and is logged."""
        try:
            self._look(memory, vcpus, anew=anew)
        except NotSupportedError as err:
            _log.warning("new code of the guest is not known: %s", err)

    def at(self, registers: Mapping[str, int]) -> Instruction | None:
        """The instruction before which a vCPU with these registers stands, if it is one of those and not a user's."""
        if registers["cs_selector"] & 3 or self._machine.memory is None:
            return None
        data = read_up_to(space_of(self._machine.memory, registers), registers["rip"], LONGEST)
        return decode(data, wide=bool(registers.get("efer", 0) & EFER_LMA))


def printed(machine: Run) -> list[dict[str, int]]:
    """The registers of all vCPUs by the monitor: some that the stub has not, and of a machine that runs as well."""
    with machine.client() as client:
        return [parse_x86_core(part) for part in by_vcpu(client.human("info registers -a")).values()]


def _spaces(vcpus: Iterable[Mapping[str, int]]) -> list[PageTables]:
    """The address spaces that vCPUs with these registers are in. Raises ``NotSupportedError`` if none is in any."""
    found = [page_tables(registers) for registers in vcpus if registers.get("cr0")]
    found = [tables._replace(base=tables.base & _BASE) for tables in found if tables.paging is not Paging.OFF]
    if not found:
        raise NotSupportedError("the guest's instructions cannot be found: none of its vCPUs has paging switched on")
    return found


def space_of(memory: GuestMemory, registers: Mapping[str, int]) -> GuestSpace:
    """The address space of a vCPU with these registers."""
    return memory.space(page_tables(registers))


def read_up_to(space: GuestSpace, address: int, size: int) -> bytes:
    """So many bytes, or those before the first that is not mapped."""
    try:
        return space.read(address, size)
    except NotMappedError as err:
        return space.read(address, err.completed) if err.completed else b""
