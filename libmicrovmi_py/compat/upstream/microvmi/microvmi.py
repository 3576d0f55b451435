# SPDX-License-Identifier: Apache-2.0
"""Upstream's machine."""

from libmicrovmi_py.compat.machine import Microvmi
from libmicrovmi_py.compat.parameters import DriverType

__all__ = ["DriverType", "Microvmi"]
