# SPDX-License-Identifier: Apache-2.0
"""Facts of processors, once for all drivers: a folder for each architecture. Nothing of a hypervisor stands here."""

from libmicrovmi_py.arch.aarch64.registers import Aarch64Registers
from libmicrovmi_py.arch.x86.registers import X86Registers

__all__ = ["Aarch64Registers", "Registers", "X86Registers"]

Registers = X86Registers | Aarch64Registers
"""The registers of one vCPU, of whichever architecture it is: ``architecture`` of the class tells."""
