# SPDX-License-Identifier: Apache-2.0
"""volatility's way to machines: ``vol -p $(microvmi volatility-path) --single-location vmi:///?vm_name=NAME PLUGIN``.

volatility imports this file by itself, in whatever Python it runs in. What cannot be imported there, or opened, is told
when a machine is asked for.
"""

from __future__ import annotations

import importlib
import sys
import urllib.request
from pathlib import Path
from typing import Any

from volatility3.framework.layers.resources import VolatilityHandler

_PACKAGE = Path(__file__).resolve().parents[4]


class MachineHandler(VolatilityHandler):
    """The scheme ``vmi``."""

    @classmethod
    def non_cached_schemes(cls) -> list[str]:
        """Those that are no files to be fetched and kept."""
        return ["vmi"]

    @staticmethod
    def vmi_open(request: urllib.request.Request) -> Any:
        """A file over the machine's memory, a new one for each layer."""
        if str(_PACKAGE) not in sys.path:
            sys.path.append(str(_PACKAGE))
        return importlib.import_module("libmicrovmi_py.tools.volatility.opening").file_of(request.full_url)
