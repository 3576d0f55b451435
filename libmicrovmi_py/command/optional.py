# SPDX-License-Identifier: Apache-2.0
"""Python packages that are the user's own: looked for when a subcommand needs one."""

from __future__ import annotations

import importlib
import sys

from libmicrovmi_py.command.kit import Failure


def need(module: str, package: str = "") -> None:
    """Have a module; ``package`` is what pip calls it, where that is another name.

    Raises :class:`Failure`, which says how to install it, or what keeps an installed one from being imported.
    """
    try:
        importlib.import_module(module)
    except ImportError as err:
        if (err.name or "").partition(".")[0] != module:
            raise Failure(f"{module} cannot be imported: {err}") from err
        install = f"{sys.executable} -m pip install {package or module}"
        raise Failure(f"{module} is not installed for this Python: {install}") from err
