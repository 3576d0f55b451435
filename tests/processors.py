# SPDX-License-Identifier: Apache-2.0
"""What tests that know the machine's architecture read of it."""

from __future__ import annotations

from libmicrovmi_py import Microvmi, X86Registers


def x86_registers(machine: Microvmi, vcpu: int = 0) -> X86Registers:
    """The registers of a vCPU of an x86 machine."""
    found = machine.read_registers(vcpu)
    assert isinstance(found, X86Registers)
    return found
