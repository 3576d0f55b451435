# SPDX-License-Identifier: Apache-2.0
"""write."""

from command.stand import Stand

STAND = Stand(
    words=("{vm}", "0x3000", "90 c3"),
    shows="2 bytes at 0x3000 are written\n",
    document=lambda told: told == {"address": "0x3000", "size": 2},
    wrong=("{dump}", "0x3000", "90"),
    says="cannot be written|read-only|cannot write",
    lasting=("{watched}&slow=write", "0x3000", "--pause", "90c3"),
)
