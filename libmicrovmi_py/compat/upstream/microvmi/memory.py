# SPDX-License-Identifier: Apache-2.0
"""Upstream's streams."""

from libmicrovmi_py.compat.streams import (
    PAGE_SIZE,
    AbstractPhysicalMemoryIO,
    PaddedPhysicalMemoryIO,
    PhysicalMemoryIO,
)

__all__ = ["PAGE_SIZE", "AbstractPhysicalMemoryIO", "PaddedPhysicalMemoryIO", "PhysicalMemoryIO"]
