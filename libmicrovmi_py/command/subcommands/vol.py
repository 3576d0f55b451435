# SPDX-License-Identifier: Apache-2.0
"""Run a plugin of volatility3 on a machine, without a symbol file.

  microvmi vol VM linux.pslist.PsList
  microvmi vol VM -r json linux.lsof.Lsof --pid 1

Behind VM stands volatility's own command line. Of a Linux guest the symbol file is made out of its memory, and kept in
the user's cache directory. Without a plugin it is put where volatility itself looks for such files, so that
"vol -f DUMP" of this guest finds it, and its path is printed.
"""

from __future__ import annotations

import argparse
import sys

from libmicrovmi_py.command import kit
from libmicrovmi_py.command.optional import need
from libmicrovmi_py.command.terminal import harmless_output
from libmicrovmi_py.errors import MicrovmiError, VmGoneError, told
from libmicrovmi_py.linux.kernel import Kernel
from libmicrovmi_py.machine.microvmi import Microvmi

_OTHER_SYSTEMS = ("windows.", "mac.")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The machine, what is read of it, and volatility's words."""
    kit.machine_argument(parser, view=True)
    parser.add_argument("words", metavar="PLUGIN", nargs=argparse.REMAINDER, help="volatility's own command line")


def run(options: argparse.Namespace) -> int:
    """Run it, or install the symbol file."""
    if not options.words:
        with kit.opened(options) as machine:
            from libmicrovmi_py.tools.volatility.symbolfile import install

            print(install(Kernel.find(machine)))
        return 0
    need("volatility3")
    with kit.viewed(options) as machine:
        return _run(machine, options.words)


def _run(machine: Microvmi, words: list[str]) -> int:
    from libmicrovmi_py.tools.volatility import commandline

    known: dict[str, object] = {}
    if not any(word.startswith(_OTHER_SYSTEMS) for word in words):
        try:
            known = commandline.known(machine, Kernel.find(machine))
        except VmGoneError:
            raise
        except MicrovmiError as err:
            kit.say(f"volatility searches the memory by itself: {told(err)}")
    quiet = [] if sys.stderr.isatty() else ["-q"]
    try:
        with harmless_output():
            commandline.run(machine, known, [*quiet, *words])
    except (MicrovmiError, OSError):
        raise
    except Exception as err:
        if sys.flags.dev_mode:
            raise
        raise kit.Failure(f"the plugin of volatility failed: {type(err).__name__}: {told(err)}") from err
    return 0
