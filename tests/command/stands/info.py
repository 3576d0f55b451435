# SPDX-License-Identifier: Apache-2.0
"""info."""

from command.stand import Stand

STAND = Stand(
    words=("{vm}",),
    shows=r"driver +fake\narchitecture +x86\nstate +running\nmemory +248.0 KiB\nmax address +0x40000\nvcpus +2\n",
    document=lambda told: told["memory"] == 0x3E000 and told["vcpus"] == 2 and "snapshot" in told["abilities"],
    wrong=("/nosuch",),
    says="/nosuch: .*No such file",
    lasting=("{watched}&slow=map",),
)
