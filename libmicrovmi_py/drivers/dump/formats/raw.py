# SPDX-License-Identifier: Apache-2.0
"""Raw: byte N of the file is guest-physical address N. Every file that is nothing else is taken for it."""

from __future__ import annotations

from libmicrovmi_py.drivers.dump.contents import Contents, Format
from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.layout import Piece


def _read(image: Image) -> Contents:
    """Bytes of a frame that the end of the file cuts exist up to there."""
    return Contents([Piece(0, image.size, 0)])


FORMAT = Format("raw", b"", _read)
