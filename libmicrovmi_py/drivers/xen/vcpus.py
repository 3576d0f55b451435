# SPDX-License-Identifier: Apache-2.0
"""Registers of a domain's vCPUs: read from their saved state, written by loading it changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from libmicrovmi_py.arch.state import VcpuState, changes
from libmicrovmi_py.arch.x86.registers import GENERAL
from libmicrovmi_py.drivers.saved import xenstate
from libmicrovmi_py.drivers.xen.xenctrl import Domain
from libmicrovmi_py.errors import NotSupportedError
from libmicrovmi_py.events import EventKind, Stop
from libmicrovmi_py.model import asked_vcpus, check_vcpu


class Vcpus:
    """The vCPUs of one domain."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain

    def read(self, asked: Sequence[int] | None) -> list[VcpuState]:
        """What their saved state tells, taken at one moment."""
        vcpus = asked_vcpus(asked, self._domain.info().vcpus)
        return xenstate.states(self._domain.context(), vcpus)

    def write(self, vcpu: int, values: Mapping[str, int]) -> None:
        """Load a vCPU's state with registers changed. The domain is paused meanwhile."""
        check_vcpu(vcpu, self._domain.info().vcpus)
        with self._domain.held():
            header, cpu = self._saved(vcpu)
            self._load(header, cpu, xenstate.changed(cpu.content, values))

    def set_beyond_general(self, vcpu: int, wanted: Mapping[str, int]) -> Mapping[str, int] | None:
        """Load ``wanted`` if it takes that; else return it: an answer to an event can set the general registers."""
        different = changes(wanted, self.read((vcpu,))[0])
        if different.keys() <= set(GENERAL):
            return wanted
        self.write(vcpu, different)
        return None

    def take_back(self, stop: Stop, rip: int | None, wanted: Mapping[str, int] | None) -> None:
        """Give a register that a vCPU has just written its old value, with ``wanted`` as the others.

        ``rip`` is where the instruction is, if it is to be executed again; a ``wanted`` that has another instruction
        pointer than the vCPU has the say. Raises ``NotSupportedError`` for an MSR that Xen does not let one write.
        """
        if stop.kind is EventKind.MSR and stop.number not in xenstate.MSRS:
            raise NotSupportedError(f"Xen does not let one write MSR {stop.number:#x}: answer CONTINUE")
        name = f"cr{stop.number}" if stop.kind is EventKind.CR else xenstate.MSRS[stop.number]
        with self._domain.held():
            header, cpu = self._saved(stop.vcpu)
            record = xenstate.become(cpu.content, wanted) if wanted is not None else cpu.content
            if rip is not None and xenstate.rip(record) == xenstate.rip(cpu.content):
                record = xenstate.changed(record, {"rip": rip})
            self._load(header, cpu, xenstate.changed(record, {name: stop.old_value}))

    def _saved(self, vcpu: int) -> tuple[xenstate.Record, xenstate.Record]:
        return xenstate.only(self._domain.context(), vcpu)

    def _load(self, header: xenstate.Record, cpu: xenstate.Record, record: bytes) -> None:
        self._domain.load(xenstate.packed(header, cpu._replace(content=record)))
