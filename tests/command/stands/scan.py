# SPDX-License-Identifier: Apache-2.0
"""scan."""

from pathlib import Path

from command.stand import Stand

FUNCTIONS = Path(__file__).resolve().parents[2] / "live" / "scan_functions.py"

STAND = Stand(
    words=("--machine", "{dump}", "hashes"),
    shows=r'\{"host": "", .*"result": \{"pages": 61, .*\}\n',
    wrong=("--machine", "{dump}", "no-such-function"),
    says="there is no function no-such-function: pattern, hashes, vol, ",
    lasting=("--machine", "{watched}&slow=read", "--pause", f"{FUNCTIONS}:waiting"),
    no_json="each line is a JSON document as it is",
)
