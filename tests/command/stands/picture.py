# SPDX-License-Identifier: Apache-2.0
"""picture."""

from command.stand import Stand

STAND = Stand(
    words=("{vm}", "{folder}/a.png", "{folder}/a.svg", "{folder}/a.html"),
    shows=r"content +size +share\nunmapped +8 KiB +3.1 %",
    document=lambda told: told["totals"]["unmapped"] == 0x2000 and told["runs"][0]["start"] == "0x0",
    wrong=("{vm}", "{folder}/no/such.png"),
    says="no/such.png: No such file",
    lasting=("{watched}&slow=read",),
)
