# SPDX-License-Identifier: Apache-2.0
"""File descriptors that live as long as somebody uses them."""

from __future__ import annotations

import os
from collections.abc import Callable


class OwnedFd:
    """A file descriptor that is closed when the last reference to this object goes.

    Whoever uses ``number`` holds a reference meanwhile, so that no other thread can close it, and the kernel hand out
    its number anew, in the middle of a call.
    """

    __slots__ = ("_close", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self._close: Callable[[int], None] = os.close

    @classmethod
    def open(cls, path: str, flags: int) -> OwnedFd:
        """Open ``path``; the descriptor is not inherited. Raises ``OSError``."""
        return cls(os.open(path, flags | os.O_CLOEXEC))

    def __del__(self) -> None:
        self._close(self.number)
