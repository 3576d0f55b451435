# SPDX-License-Identifier: Apache-2.0
"""read."""

from command.stand import Stand

STAND = Stand(
    words=("{vm}", "0x3000", "0x30"),
    shows=r"0000000000003000  03 00 00 00 00 00 00 00  03 00 00 00 00 00 00 00  \|\.{16}\|\n\*\n0000000000003030\n",
    document=lambda told: told == {"address": "0x3000", "size": 48, "data": "0300000000000000" * 6},
    wrong=("{vm}", "0x3ff0", "32"),
    says="no memory at physical address 0x4000",
    lasting=("{watched}&slow=read", "0", "0x40000", "--pause"),
)
