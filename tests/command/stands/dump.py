# SPDX-License-Identifier: Apache-2.0
"""dump."""

from command.stand import Stand

STAND = Stand(
    words=("{vm}", "{folder}/raw", "--force"),
    shows=r"/raw: raw, 256.0 KiB, 244.0 KiB of data",
    document=lambda told: told["size"] == 0x40000 and told["data"] == 0x3D000 and told["view"] == "snapshot",
    wrong=("{vm}", "{folder}/no/such/folder"),
    says="no/such/folder.partial: No such file or directory",
    lasting=("{watched}&slow=read", "{folder}/raw", "--pause"),
)
