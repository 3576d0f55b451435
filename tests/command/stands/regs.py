# SPDX-License-Identifier: Apache-2.0
"""regs."""

from command.stand import Stand

STAND = Stand(
    words=("{vm}", "rip", "cs_base"),
    shows=r"vCPU 0\n  rip +0x000000000000fff0  cs_base +0x00000000ffff0000\nvCPU 1\n",
    document=lambda vcpus: vcpus[1] == {"vcpu": 1, "registers": {"rip": "0xfff0", "cs_base": "0xffff0000"}},
    wrong=("{vm}", "nosuch"),
    says="the register is not known: nosuch",
    lasting=("{watched}&slow=states", "--pause"),
)
