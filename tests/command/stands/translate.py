# SPDX-License-Identifier: Apache-2.0
"""translate."""

from command.stand import Stand

STAND = Stand(
    words=("{vm}", "0x3000"),
    shows=r"address +0x3000\nphysical address +0x3000\n",
    document=lambda told: told["physical_address"] == "0x3000" and told["failure"] is None,
    wrong=("{vm}", "0x3000", "--vcpu", "7"),
    says="no vCPU 7: the machine has 2",
    lasting=("{watched}&slow=states", "0x3000", "--pause"),
)
