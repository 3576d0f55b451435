# SPDX-License-Identifier: Apache-2.0
"""Pause a machine, until this ends (Ctrl-C), or for a time.

Standard output says when it stands. Whatever ends this, a signal included, the machine then runs again, if it ran
before; after a SIGKILL it stands until somebody lets it run, as microvmi resume does. Exit code 1 says that somebody
else let it run meanwhile, or that it ended.
"""

from __future__ import annotations

import argparse
import sys
import time

from libmicrovmi_py.command import kit
from libmicrovmi_py.drivers.control import Phase, SupportsPause
from libmicrovmi_py.machine.microvmi import Microvmi

_LOOK = 1.0
"""Seconds between two looks at whether it still stands."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The machine, and how long."""
    kit.machine_argument(parser)
    text = "let it run again after this time; without it, when this ends"
    parser.add_argument("--for", dest="time", metavar="SECONDS", type=kit.seconds, help=text)
    kit.json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Pause it, and wait."""
    with kit.opened(options) as machine:
        machine.pause()
        kit.show(options, {"paused": True, "seconds": options.time}, lambda: ["the machine is paused"])
        sys.stdout.flush()
        _wait(machine, options.time)
    return 0


def _wait(machine: Microvmi, seconds: float | None) -> None:
    """Raises what the driver raises of a machine that ended, and :class:`kit.Failure` for one that runs."""
    end = None if seconds is None else time.monotonic() + seconds
    while end is None or time.monotonic() < end:
        time.sleep(_LOOK if end is None else min(_LOOK, max(0.0, end - time.monotonic())))
        driver = machine.driver
        if isinstance(driver, SupportsPause) and driver.run_state().phase is Phase.RUNS:
            raise kit.Failure("somebody else let the machine run")
