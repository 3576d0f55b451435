# SPDX-License-Identifier: Apache-2.0
"""Let a machine run, whoever stopped it.

It is refused where that would do harm: while somebody is saving or migrating the machine, or has it in a debugger.
"""

from __future__ import annotations

import argparse

from libmicrovmi_py.command import kit


def arguments(parser: argparse.ArgumentParser) -> None:
    """The machine."""
    kit.machine_argument(parser)
    kit.json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Let it run."""
    with kit.opened(options) as machine:
        machine.resume()
    kit.show(options, {"paused": False}, lambda: ["the machine runs"])
    return 0
