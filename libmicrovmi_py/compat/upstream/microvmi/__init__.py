# SPDX-License-Identifier: Apache-2.0
"""Upstream's Python package, over libmicrovmi_py. What is on the module path beside it, as upstream's handler for
volatility in ``microvmi/volatility``, is found as a part of it.
"""

import importlib.util
import sys
from pathlib import Path
from pkgutil import extend_path

if importlib.util.find_spec("libmicrovmi_py") is None:  # this folder is on the path, and not the one that it lies in
    sys.path.append(str(Path(__file__).resolve().parents[4]))

from libmicrovmi_py.compat.machine import Microvmi
from libmicrovmi_py.compat.parameters import (
    CommonInitParamsPy,
    DriverInitParamsPy,
    DriverType,
    KVMInitParamsPy,
    MemflowInitParamsPy,
)

__path__ = extend_path(__path__, __name__)

__all__ = [
    "CommonInitParamsPy",
    "DriverInitParamsPy",
    "DriverType",
    "KVMInitParamsPy",
    "MemflowInitParamsPy",
    "Microvmi",
]
