# SPDX-License-Identifier: Apache-2.0
"""volatility-path."""

from command.stand import Stand

STAND = Stand(
    words=(),
    shows=r"/libmicrovmi_py/tools/volatility/plugins\r?\n",
    untouched="it prints a path",
    no_json="one path",
)
