# SPDX-License-Identifier: Apache-2.0
"""Model-specific registers: names and indexes."""

from __future__ import annotations

from libmicrovmi_py.arch.x86.registers import SYSTEM

INDEXES = {
    "apic_base": 0x1B,
    "sysenter_cs": 0x174,
    "sysenter_esp": 0x175,
    "sysenter_eip": 0x176,
    "msr_efer": 0xC0000080,
    "msr_star": 0xC0000081,
    "msr_lstar": 0xC0000082,
    "msr_cstar": 0xC0000083,
    "msr_fmask": 0xC0000084,
    "fs_base": 0xC0000100,
    "gs_base": 0xC0000101,
    "kernel_gs_base": 0xC0000102,
}
"""The index of each by its name, which is that of the member of ``X86Registers`` where there is one."""

MEMBERS = {name: index for name, index in INDEXES.items() if name in SYSTEM}
"""Those of them that are members of ``X86Registers``."""

INDEX_MAX = 0xFFFFFFFF
"""An index has 32 bits."""
