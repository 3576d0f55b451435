# SPDX-License-Identifier: Apache-2.0
"""Raw: byte N of the file is guest-physical address N. Every file that is nothing else is taken for it."""

from __future__ import annotations

from libmicrovmi_py.drivers.dump.contents import Contents
from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.layout import Extent


def read(image: Image) -> Contents:
    """The memory in the file, and what else it tells."""
    """If the file ends within a frame, the frame exists up to there."""
    return Contents([Extent(0, image.size, 0)])
