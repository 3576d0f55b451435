# SPDX-License-Identifier: Apache-2.0
"""What is known about an image of memory: loaded when somebody asks."""

from __future__ import annotations

import enum

from libmicrovmi_py.declare import Protocol, dataclass, runtime_checkable


class ImageAccess(enum.IntEnum):
    """How the memory of an image is reached; the numbers of ``enum microvmi_image_access`` in the C header."""

    MAPPED = 1
    """It lies in files as it is, which are mapped."""
    CALLS = 2
    """It lies in files as it is, which are read by system calls."""
    PIECES = 3
    """Page by page, or in larger pieces: each is looked up, and unpacked if it is packed, when it is read."""


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What an image is, and what of it is there.

    ``format`` is its format's name, ``wrappers`` those of what was around it, the outermost first. ``producer`` is the
    program that wrote it, ``machine`` the type of machine, both in the words of the image; ``""`` if it does not tell.
    Pages have 4096 bytes, and one that is there in part counts: ``present`` are in the image, ``absent`` are not,
    though it tells that the machine had them (0 as well where it tells nothing of others), and ``zero`` of those that
    are present consist of zeros, for which it has no bytes (``None``: it does not tell them apart).
    ``files`` are the paths of all files that belong to it, the one that was named first. ``missing`` has a line for
    each thing that should be in them and is not, and why; without ``partial=on`` there is none, as that is an error.
    ``remarks`` are lines of what one should know of how it was opened.
    """

    format: str
    wrappers: tuple[str, ...]
    producer: str
    machine: str
    access: ImageAccess
    present: int
    absent: int
    zero: int | None
    files: tuple[str, ...]
    missing: tuple[str, ...]
    remarks: tuple[str, ...]


@runtime_checkable
class SupportsImageInfo(Protocol):
    """Being opened from files that an image of memory is in."""

    def image_info(self) -> ImageInfo:
        """What is known about it. It reads nothing."""
