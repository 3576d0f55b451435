# SPDX-License-Identifier: Apache-2.0
"""Print the folder that has upstream's Python module.

With it in PYTHONPATH programs that were written for upstream's package microvmi run over this library, unchanged:

  PYTHONPATH=$(microvmi upstream-path) python3 mem-dump.py -d debian

In a file microvmi.pth in the folder of a Python's packages it is there for good.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from libmicrovmi_py import compat


def arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(options: argparse.Namespace) -> int:
    """Print it."""
    print(Path(compat.__file__).resolve().parent / "upstream")
    return 0
