# SPDX-License-Identifier: Apache-2.0
"""Model-specific registers: names and indexes."""

from __future__ import annotations

INDEXES = {
    "apic_base": 0x1B,
    "sysenter_cs": 0x174,
    "sysenter_esp": 0x175,
    "sysenter_eip": 0x176,
    "efer": 0xC0000080,
    "star": 0xC0000081,
    "lstar": 0xC0000082,
    "cstar": 0xC0000083,
    "fmask": 0xC0000084,
    "fs_base": 0xC0000100,
    "gs_base": 0xC0000101,
    "kernel_gs_base": 0xC0000102,
    "tsc_aux": 0xC0000103,
}
"""The index of each by its name, which is that of a register in a state."""

INDEX_MAX = 0xFFFFFFFF
"""An index has 32 bits."""
