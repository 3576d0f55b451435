# SPDX-License-Identifier: Apache-2.0
"""A driver's memory: by address (``physical``) and as two files with cursors of their own (``io``)."""

from libmicrovmi_py.memory.io import Memory, PaddedMemory
from libmicrovmi_py.memory.physical import PhysicalMemory

__all__ = ["Memory", "PaddedMemory", "PhysicalMemory"]
