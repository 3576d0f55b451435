# SPDX-License-Identifier: Apache-2.0
"""mount."""

from command.stand import Stand

STAND = Stand(
    words=("{vm}", "{folder}", "--for", "0.2"),
    shows="mounted at /.*/folder\n$",
    document=lambda told: told["fixed"] and not told["processes"],
    wrong=("{vm}", "{folder}/nosuch", "--for", "0.2"),
    says="nosuch: No such file",
    lasting=("{watched}", "{folder}"),
    begun="mounted at",
    needs=("fusermount3", "fuse3"),
)
