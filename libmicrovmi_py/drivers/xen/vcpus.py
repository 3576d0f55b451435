# SPDX-License-Identifier: Apache-2.0
"""Registers of a domain's vCPUs: read from their saved state, written by loading it changed."""

from __future__ import annotations

from libmicrovmi_py.arch.x86.registers import GENERAL, X86Registers
from libmicrovmi_py.declare import replace
from libmicrovmi_py.drivers.base import check_vcpu
from libmicrovmi_py.drivers.xen import context
from libmicrovmi_py.drivers.xen.xenctrl import Domain
from libmicrovmi_py.errors import IoError, NotSupportedError
from libmicrovmi_py.events import EventKind, Stop


class Vcpus:
    """The vCPUs of one domain."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain

    def read(self, vcpu: int) -> X86Registers:
        """The registers of a vCPU, from its saved state and that of its local APIC."""
        check_vcpu(vcpu, self._domain.info().vcpus)
        record = self._domain.record("reading registers", context.CPU, vcpu, context.CPU_SIZE)
        return context.registers(record, self._apic_base(vcpu))

    def _apic_base(self, vcpu: int) -> int:
        """0 for a domain without APICs."""
        try:
            apic = self._domain.record("reading the APIC base", context.LAPIC, vcpu, context.LAPIC_SIZE)
        except IoError:
            return 0
        return int.from_bytes(apic[:8], "little")

    def write(self, vcpu: int, registers: X86Registers) -> None:
        """Load a vCPU's state with the registers changed. The domain is paused meanwhile."""
        check_vcpu(vcpu, self._domain.info().vcpus)
        with self._domain.held():
            header, cpu = self._saved(vcpu)
            self._load(header, cpu, context.changed(cpu.content, registers))

    def set_beyond_general(self, vcpu: int, wanted: X86Registers) -> X86Registers | None:
        """Load ``wanted`` if it takes that; else return it: an answer to an event can set the general registers."""
        now = self.read(vcpu)
        if replace(now, **{name: getattr(wanted, name) for name in GENERAL}) == wanted:
            return wanted
        self.write(vcpu, wanted)
        return None

    def take_back(self, stop: Stop, rip: int | None, wanted: X86Registers | None) -> None:
        """Give a register that a vCPU has just written its old value, with ``wanted`` as the others.

        ``rip`` is where the instruction is, if it is to be executed again; a ``wanted`` that has another instruction
        pointer than the vCPU has the say. Raises ``NotSupportedError`` for an MSR that Xen does not let one write.
        """
        if stop.kind is EventKind.MSR and stop.number not in context.MSRS:
            raise NotSupportedError(f"Xen does not let one write MSR {stop.number:#x}: answer CONTINUE")
        name = f"cr{stop.number}" if stop.kind is EventKind.CR else context.MSRS[stop.number]
        with self._domain.held():
            header, cpu = self._saved(stop.vcpu)
            record = context.changed(cpu.content, wanted) if wanted is not None else cpu.content
            if rip is not None and context.rip(record) == context.rip(cpu.content):
                record = context.with_value(record, "rip", rip)
            self._load(header, cpu, context.with_value(record, name, stop.old_value))

    def _saved(self, vcpu: int) -> tuple[context.Record, context.Record]:
        return context.only(self._domain.context(), vcpu)

    def _load(self, header: context.Record, cpu: context.Record, record: bytes) -> None:
        self._domain.load(context.packed(header, cpu._replace(content=record)))
