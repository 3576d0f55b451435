# SPDX-License-Identifier: Apache-2.0
"""upstream-path."""

from command.stand import Stand

STAND = Stand(
    words=(),
    shows="^/.*/libmicrovmi_py/compat/upstream\n$",
    untouched="it looks at no machine",
    no_json="it is a path, for the shell",
)
