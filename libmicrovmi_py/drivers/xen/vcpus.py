# SPDX-License-Identifier: Apache-2.0
"""Registers of a domain's vCPUs: read from their saved state, written by loading it changed."""

from __future__ import annotations

from dataclasses import replace

from libmicrovmi_py.drivers.base import check_vcpu
from libmicrovmi_py.drivers.xen import context
from libmicrovmi_py.drivers.xen.control import Control
from libmicrovmi_py.errors import IoError, NotSupportedError
from libmicrovmi_py.events import Event, EventKind
from libmicrovmi_py.model import X86_GENERAL, Registers

_GENERAL = X86_GENERAL[:18]


class Vcpus:
    """The vCPUs of one domain."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def read(self, vcpu: int) -> Registers:
        """The registers of a vCPU, from its saved state and that of its local APIC."""
        check_vcpu(vcpu, self._control.info().vcpus)
        record = self._control.record("reading registers", context.CPU, vcpu, context.CPU_SIZE)
        return context.registers(record, self._apic_base(vcpu))

    def _apic_base(self, vcpu: int) -> int:
        """0 for a domain without APICs."""
        try:
            apic = self._control.record("reading the APIC base", context.LAPIC, vcpu, context.LAPIC_SIZE)
        except IoError:
            return 0
        return int.from_bytes(apic[:8], "little")

    def write(self, vcpu: int, registers: Registers) -> None:
        """Load a vCPU's state with the registers changed. The domain is paused meanwhile."""
        check_vcpu(vcpu, self._control.info().vcpus)
        with self._control.held():
            header, cpu = self._saved(vcpu)
            self._load(header, cpu, context.changed(cpu.content, registers))

    def set_beyond_general(self, vcpu: int, wanted: Registers) -> Registers | None:
        """Load ``wanted`` if it takes that; else return it: an answer to an event can set the general registers."""
        now = self.read(vcpu)
        if replace(now, **{name: getattr(wanted, name) for name in _GENERAL}) == wanted:
            return wanted
        self.write(vcpu, wanted)
        return None

    def take_back(self, event: Event, rip: int | None, wanted: Registers | None) -> None:
        """Give a register that a vCPU has just written its old value, with ``wanted`` as the others.

        ``rip`` is where the instruction is, if it is to be executed again; a ``wanted`` that has another instruction
        pointer than the vCPU has the say. Raises ``NotSupportedError`` for an MSR that Xen does not let one write.
        """
        if event.kind is EventKind.MSR and event.number not in context.MSRS:
            raise NotSupportedError(f"Xen does not let one write MSR {event.number:#x}: answer CONTINUE")
        name = f"cr{event.number}" if event.kind is EventKind.CR else context.MSRS[event.number]
        with self._control.held():
            header, cpu = self._saved(event.vcpu)
            record = context.changed(cpu.content, wanted) if wanted is not None else cpu.content
            if rip is not None and context.rip(record) == context.rip(cpu.content):
                record = context.with_value(record, "rip", rip)
            self._load(header, cpu, context.with_value(record, name, event.old_value))

    def _saved(self, vcpu: int) -> tuple[context.Record, context.Record]:
        return context.only(self._control.context(), vcpu)

    def _load(self, header: context.Record, cpu: context.Record, record: bytes) -> None:
        self._control.load(context.packed(header, cpu._replace(content=record)))
