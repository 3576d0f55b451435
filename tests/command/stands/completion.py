# SPDX-License-Identifier: Apache-2.0
"""completion."""

from command.stand import Stand

STAND = Stand(
    words=("words", "li"),
    shows="^list\n$",
    no_json="it is for shells",
    untouched="it looks at no machine but as list does",
)
