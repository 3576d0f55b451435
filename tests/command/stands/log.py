# SPDX-License-Identifier: Apache-2.0
"""log."""

from command.stand import Stand

STAND = Stand(
    words=("{vm}",),
    shows=r"Linux version \d",
    document=lambda lines: any("Linux version" in line["text"] for line in lines),
    wrong=("{dump}",),
    says="Linux",
    lasting=("{vm}", "--pause"),
    begun="the machine is paused while it is read",
    guest="linux",
)
