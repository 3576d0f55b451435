# SPDX-License-Identifier: Apache-2.0
"""resume."""

from command.stand import Stand

STAND = Stand(
    words=("{vm}",),
    shows="^the machine runs\n$",
    document=lambda told: told == {"paused": False},
    wrong=("vmi://nosuch/",),
    says="there is no driver nosuch",
    lasting=("{watched}&slow=run&stopped=yes",),
)
