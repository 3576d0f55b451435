# SPDX-License-Identifier: Apache-2.0
"""list."""

from command.stand import Stand

STAND = Stand(
    words=("--driver", "fake"),
    shows=r"DRIVER .*URI\nfake +- +- +running +1 +1 +- +vmi://fake/",
    document=lambda machines: machines[0]["uri"] == "vmi://fake/" and machines[0]["state"] == "running",
    wrong=("--driver", "nosuch"),
    says="there is no driver nosuch; there are: .*qemu",
    lasting=("--driver", "watched"),
)
