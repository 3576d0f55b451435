# SPDX-License-Identifier: Apache-2.0
"""diff."""

from command.stand import Stand

STAND = Stand(
    words=("{dump}", "{vm}&rom=0-0x1000"),
    shows=r"0x000000004000  0x000000006000 +8.0 KiB  ram\n2 frames in 1 runs are different, 8.0 KiB\n",
    document=lambda told: told["frames"] == 2 and told["ranges"][0]["start"] == "0x4000",
    wrong=("{dump}", "/nosuch"),
    says="/nosuch: .*No such file",
    lasting=("{watched}&slow=read", "--wait", "60"),
)
