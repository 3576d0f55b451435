# SPDX-License-Identifier: Apache-2.0
"""drgn."""

from pathlib import Path

from command.stand import Stand

SCRIPT = str(Path(__file__).resolve().parents[1] / "scripts" / "tasks.py")

STAND = Stand(
    words=("{vm}", SCRIPT),
    shows=r"(?m)^1 init\r?$",
    wrong=("/nosuch", SCRIPT),
    says="/nosuch: .*No such file",
    lasting=("{vm}", SCRIPT, "stay"),
    begun="1 init",
    no_json="what a script prints is its own",
    guest="linux",
    extra="drgn",
)
