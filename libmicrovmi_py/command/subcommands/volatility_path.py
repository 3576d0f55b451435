# SPDX-License-Identifier: Apache-2.0
"""Print the folder with volatility's handler of vmi:// locations.

  vol -p $(microvmi volatility-path) --single-location 'vmi:///?vm_name=NAME' PLUGIN

volatility then opens machines by itself, in its own Python. microvmi vol is quicker, as it knows more.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from libmicrovmi_py import tools


def arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(options: argparse.Namespace) -> int:
    """Print it."""
    print(Path(tools.__file__).resolve().parent / "volatility" / "plugins")
    return 0
