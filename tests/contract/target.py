# SPDX-License-Identifier: Apache-2.0
"""What a stand tells the contract test about the machine that it set up."""

from __future__ import annotations

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
