# SPDX-License-Identifier: Apache-2.0
"""The files that an image of evidence is split into: where the first is, the others are by their endings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from libmicrovmi_py.drivers.dump.image import Image

_MOST = 14_971
"""As many as there are names from .E01 to .ZZZ."""


def segments(image: Image, number_of: Callable[[Image], int], goes_on: Callable[[Image], bool]) -> Iterator[Image]:
    """The files of an image, as long as each says that there is another (``goes_on``).

    Raises ``IoError`` for one that is not there, but with ``partial``, and for one that has another number.
    """
    segment: Image | None = image
    for number in range(1, _MOST):
        if segment is None:
            image.amiss(f"the segment {image.stem}{ending(image.path, number)} is not there")
            return
        if number_of(segment) != number:
            raise segment.damaged(f"it is not segment {number}")
        yield segment
        if not goes_on(segment):
            return
        segment = image.beside(image.stem + ending(image.path, number + 1))


def ending(path: str, number: int) -> str:
    """.E02 to .E99, .EAA to .EZZ, .FAA and so on, .Ex02 to .ExZZ, .EyAA and so on, in the case of the first one."""
    first = os.path.splitext(path)[1][:-2]
    if number < 100:
        return f"{first}{number:02}"
    rest, index = divmod(number - 100, 676)
    letters = "".join(chr(ord("A") + digit) for digit in divmod(index, 26))
    return first[:-1] + chr(ord(first[-1]) + rest) + (letters if first[1:2].isupper() else letters.lower())
