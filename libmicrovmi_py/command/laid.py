# SPDX-License-Identifier: Apache-2.0
"""What ``make install`` lays down of the command: the program, its manual page, completion for shells."""

from __future__ import annotations

import os
import sys
import sysconfig

from libmicrovmi_py.command.page import page
from libmicrovmi_py.command.subcommands.completion import BASH, ZSH

PROGRAM = """#!{python}
# SPDX-License-Identifier: Apache-2.0
import os
import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until our own is there, as an interrupt is no news to tell
here = os.path.dirname(os.path.realpath(__file__))
sys.path[:] = [os.path.join(here, {modules!r}), *(path for path in sys.path if path != here)]

from libmicrovmi_py.command.main import main

sys.exit(main())
"""


def files(bindir: str, datadir: str, libdir: str) -> dict[str, str]:
    """The content of each file by its path."""
    modules = os.path.relpath(os.path.join(libdir, "libmicrovmi"), bindir)
    return {
        f"{bindir}/microvmi": PROGRAM.format(python=interpreter(), modules=modules),
        f"{datadir}/man/man1/microvmi.1": page(),
        f"{datadir}/bash-completion/completions/microvmi": BASH,
        f"{datadir}/zsh/site-functions/_microvmi": ZSH,
    }


def interpreter() -> str:
    """The path of the Python that this one is, or is a virtual environment of: one of its own minor version."""
    folder = os.path.join(sys.base_prefix, "bin")
    versions = (sysconfig.get_config_var("LDVERSION"), f"{sys.version_info[0]}.{sys.version_info[1]}", "3")
    found = (os.path.join(folder, f"python{version}") for version in versions)
    return next((path for path in found if os.access(path, os.X_OK)), os.path.realpath(sys.executable))
