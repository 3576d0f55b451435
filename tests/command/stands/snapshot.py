# SPDX-License-Identifier: Apache-2.0
"""snapshot."""

from command.stand import Stand

STAND = Stand(
    words=("{vm}", "{folder}/elf", "--force"),
    shows=r"/elf: elf, [0-9.]+ KiB, [0-9.]+ KiB of data",
    document=lambda told: told["format"] == "elf" and told["method"] == "paused" and told["stood"] > 0,
    wrong=("{vm}", "{folder}/elf", "--max", "4K"),
    says="allowed|max_bytes",
    lasting=("{watched}&slow=read", "{folder}/elf"),
)
