# SPDX-License-Identifier: Apache-2.0
"""What upstream has in its native module."""

from libmicrovmi_py.compat.machine import MicrovmiExt
from libmicrovmi_py.compat.parameters import (
    CommonInitParamsPy,
    DriverInitParamsPy,
    KVMInitParamsPy,
    MemflowInitParamsPy,
)


class DriverType:
    """The numbers that ``MicrovmiExt`` takes."""

    KVM = 0
    VIRTUALBOX = 1
    XEN = 2


__all__ = [
    "CommonInitParamsPy",
    "DriverInitParamsPy",
    "DriverType",
    "KVMInitParamsPy",
    "MemflowInitParamsPy",
    "MicrovmiExt",
]
