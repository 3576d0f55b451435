# SPDX-License-Identifier: Apache-2.0
"""What a stand tells the contract test about the machine that it set up."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """A machine whose memory is known.

    ``uri`` opens it. ``pieces`` is everything that exists: guest-physical start address -> the bytes from there on;
    frames in between do not exist. ``writable`` is whether the test may write memory.
    """

    uri: str
    pieces: dict[int, bytes]
    writable: bool


@dataclass(frozen=True, slots=True)
class Failing:
    """A machine that a hypervisor fails in the middle of: accesses to some of its frames end with an I/O error.

    ``pieces`` is all that exists, the frames that fail included. The frame that starts at ``unreadable`` cannot be
    read, the one at ``unwritable`` cannot be written; ``None``: the driver has no such failures. The 20 frames in front
    of them are well. ``exact`` is whether the driver knows how far it got, else it may tell less. ``failing()`` is
    a block in which it does, of a machine that is open.
    """

    uri: str
    pieces: dict[int, bytes]
    unreadable: int | None = None
    unwritable: int | None = None
    exact: bool = True
    failing: Callable[[], AbstractContextManager[None]] = nullcontext
