# SPDX-License-Identifier: Apache-2.0
"""manual."""

from command.stand import Stand

STAND = Stand(
    words=(),
    shows=r"^\.\\\" SPDX.*\n\.TH MICROVMI 1",
    no_json="it is for man",
    untouched="it looks at no machine",
)
