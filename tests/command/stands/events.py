# SPDX-License-Identifier: Apache-2.0
"""events."""

from command.stand import Stand

STAND = Stand(
    words=("{vm}", "--count", "1"),
    shows=r"(?m)^ +\d+\.\d{6}  vcpu 0  cr3 +0x0 -> 0x1000  at 0x7c10\n$",
    document=lambda told: (told["event"], told["number"], told["new"], told["process"]) == ("cr", 3, "0x1000", None),
    wrong=("{dump}",),
    says="the dump driver cannot intercept events",
    lasting=("{watched}", "--msr", "sysenter_cs"),
    begun=r"msr 0x174",
)
