# SPDX-License-Identifier: Apache-2.0
"""pause."""

from command.stand import Stand

STAND = Stand(
    words=("{vm}", "--for", "0.1"),
    shows="^the machine is paused\n$",
    document=lambda told: told == {"paused": True, "seconds": 0.1},
    wrong=("vmi://nosuch/",),
    says="there is no driver nosuch",
    lasting=("{watched}",),
    begun="the machine is paused",
)
