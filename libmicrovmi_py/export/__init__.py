# SPDX-License-Identifier: Apache-2.0
"""Memory as files of other formats: raw, LiME, ELF, kdump. What of them is flat is written and served as one layout."""

from libmicrovmi_py.export.elf import elf
from libmicrovmi_py.export.layout import Extent, Layout, Segment
from libmicrovmi_py.export.plain import lime, raw

__all__ = ["Extent", "Layout", "Segment", "elf", "lime", "raw"]
