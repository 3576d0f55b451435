# SPDX-License-Identifier: Apache-2.0
"""The registers of an AArch64 vCPU out of QEMU's device state: section ``cpu`` in its version 22."""

from __future__ import annotations

import struct

from libmicrovmi_py.arch.aarch64.registers import stack_of
from libmicrovmi_py.drivers.saved.sections import Section, value_at

VERSION = 22
"""Of the section ``cpu`` that is understood; QEMU has had it since 2.2."""

_MOST = 4096
"""System registers that one vCPU may have; QEMU tells some 200 to 400."""

_HEAD = struct.Struct(">64x32QQI4x8Q104x4Q4Q")
"""Registers of AArch32; x0 to sp, pc, pstate; SPSR, banked; of AArch32 again; ELR and SP of the four levels."""

_SPSR_EL1, _SPSR_EL2 = 1, 6
"""Where among the banked SPSRs those of exception levels 1 and 2 stand."""

_MODE = 0x1F
_NARROW = 1 << 4
"""Bits of pstate: the mode, and in it that the vCPU executes AArch32."""

_SYSTEM = 0x6030000000130000
"""The number of a system register, without its five parts, as Linux has it."""


def _number(*parts: int) -> int:
    """Of op0, op1, CRn, CRm, op2."""
    op0, op1, crn, crm, op2 = parts
    return _SYSTEM | op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2


NAMES = {
    _number(3, 0, 0, 0, 0): "midr_el1",
    _number(3, 0, 0, 0, 5): "mpidr_el1",
    _number(3, 0, 0, 4, 0): "id_aa64pfr0_el1",
    _number(3, 0, 0, 4, 1): "id_aa64pfr1_el1",
    _number(3, 0, 0, 7, 0): "id_aa64mmfr0_el1",
    _number(3, 0, 0, 7, 1): "id_aa64mmfr1_el1",
    _number(3, 0, 0, 7, 2): "id_aa64mmfr2_el1",
    _number(2, 0, 0, 2, 2): "mdscr_el1",
    _number(3, 0, 1, 0, 0): "sctlr_el1",
    _number(3, 0, 1, 0, 1): "actlr_el1",
    _number(3, 0, 1, 0, 2): "cpacr_el1",
    _number(3, 0, 2, 0, 0): "ttbr0_el1",
    _number(3, 0, 2, 0, 1): "ttbr1_el1",
    _number(3, 0, 2, 0, 2): "tcr_el1",
    _number(3, 0, 5, 1, 0): "afsr0_el1",
    _number(3, 0, 5, 1, 1): "afsr1_el1",
    _number(3, 0, 5, 2, 0): "esr_el1",
    _number(3, 0, 6, 0, 0): "far_el1",
    _number(3, 0, 7, 4, 0): "par_el1",
    _number(3, 0, 10, 2, 0): "mair_el1",
    _number(3, 0, 10, 3, 0): "amair_el1",
    _number(3, 0, 12, 0, 0): "vbar_el1",
    _number(3, 0, 13, 0, 1): "contextidr_el1",
    _number(3, 0, 13, 0, 4): "tpidr_el1",
    _number(3, 0, 14, 1, 0): "cntkctl_el1",
    _number(3, 3, 13, 0, 2): "tpidr_el0",
    _number(3, 3, 13, 0, 3): "tpidrro_el0",
    _number(3, 4, 1, 0, 0): "sctlr_el2",
    _number(3, 4, 1, 1, 0): "hcr_el2",
    _number(3, 4, 2, 0, 0): "ttbr0_el2",
    _number(3, 4, 2, 0, 2): "tcr_el2",
    _number(3, 4, 2, 1, 0): "vttbr_el2",
    _number(3, 4, 2, 1, 2): "vtcr_el2",
    _number(3, 4, 5, 2, 0): "esr_el2",
    _number(3, 4, 6, 0, 0): "far_el2",
    _number(3, 4, 10, 2, 0): "mair_el2",
    _number(3, 4, 12, 0, 0): "vbar_el2",
    _number(3, 4, 13, 0, 2): "tpidr_el2",
}
"""System registers by their numbers."""


def parse_cpu(data: bytes, section: Section) -> dict[str, int] | None:
    """The registers of a section, by the names of ``STATE``; ``None`` if it is not what the layout says.

    Those of level 2 are there if the processor has that level. Nothing of a vCPU that executes AArch32.
    """
    count = value_at(data, section.start + _HEAD.size, 4)
    if section.version != VERSION or count is None or count > _MOST:
        return None
    lists = section.start + _HEAD.size + 4
    if len(data) < lists + 16 * count:
        return None
    words = _HEAD.unpack_from(data, section.start)
    numbers = struct.unpack_from(f">{2 * count}Q", data, lists)
    system = dict(zip(numbers[:count], numbers[count:], strict=True))
    if len(system) < count or words[33] & _NARROW:
        return None
    values = {name: system[number] for number, name in NAMES.items() if number in system}
    return {**values, **_banked(words, level_2="hcr_el2" in values)}


def _banked(words: tuple[int, ...], *, level_2: bool) -> dict[str, int]:
    """What stands before the system registers. The stack pointer of the present mode is not where the others are."""
    general, pc, pstate, rest = words[:32], words[32], words[33], words[34:]
    spsr, elr, sp = rest[:8], rest[8:12], list(rest[12:])
    sp[stack_of(pstate)] = general[31]
    values = {f"x{number}": value for number, value in enumerate(general[:31])}
    values |= {"pc": pc, "pstate": pstate, "sp_el0": sp[0], "sp_el1": sp[1]}
    values |= {"elr_el1": elr[1], "spsr_el1": spsr[_SPSR_EL1]}
    if level_2:
        values |= {"sp_el2": sp[2], "elr_el2": elr[2], "spsr_el2": spsr[_SPSR_EL2]}
    return values
