# SPDX-License-Identifier: Apache-2.0
"""By which page tables an address is virtual, for the subcommands that take one."""

from __future__ import annotations

import argparse

from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.command import kit
from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.machine.microvmi import Microvmi

if TYPE_CHECKING:
    from libmicrovmi_py.memory.virtual import AddressSpace


def space_arguments(parser: argparse.ArgumentParser, *, switch: bool) -> None:
    """Have ``--vcpu`` and ``--base``; with ``switch`` also ``--virtual``, without which the address is physical."""
    group = parser.add_argument_group("virtual memory")
    if switch:
        text = "virtual memory, not guest-physical; the other two options mean that as well"
        group.add_argument("-V", "--virtual", action="store_true", help=text)
    group.add_argument(
        "--vcpu", metavar="N", type=kit.size, help="by the page tables of this vCPU (0 if none is named)"
    )
    text = "by the page tables there: CR3, or TTBR0_EL1 of AArch64, of another process for example"
    group.add_argument("--base", metavar="ADDRESS", type=kit.address, help=text)


def is_virtual(options: argparse.Namespace) -> bool:
    """Whether an address is meant to be virtual."""
    return options.virtual or options.vcpu is not None or options.base is not None


def space_of(machine: Microvmi, options: argparse.Namespace) -> AddressSpace:
    """The address space that the options name. Raises as ``Microvmi.address_space``."""
    vcpu = options.vcpu
    if vcpu is None and (options.base is None or Ability.READ_REGISTERS in machine.abilities.can):
        vcpu = 0
    return machine.address_space(options.base, vcpu=vcpu)
