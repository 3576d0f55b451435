# SPDX-License-Identifier: Apache-2.0
"""map."""

from command.stand import Stand

STAND = Stand(
    words=("{vm}",),
    shows=r"START +END +SIZE +KIND\n +0x0 +0x4000 +16.0 KiB +ram\n *0x6000 +0x40000 +232.0 KiB +ram\n",
    document=lambda ranges: (
        [(item["start"], item["size"]) for item in ranges] == [("0x0", 0x4000), ("0x6000", 0x3A000)]
    ),
    wrong=("nosuch",),
    says="there is no machine and no file nosuch; microvmi list shows the machines",
    lasting=("{watched}&slow=map", "--pause"),
)
