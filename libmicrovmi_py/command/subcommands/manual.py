# SPDX-License-Identifier: Apache-2.0
"""Print the manual page, as make install lays it down.

microvmi manual | man -l -
"""

from __future__ import annotations

import argparse
import sys


def arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(options: argparse.Namespace) -> int:
    """Print it."""
    from libmicrovmi_py.command.page import page

    sys.stdout.write(page())
    return 0
