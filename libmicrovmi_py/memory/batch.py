# SPDX-License-Identifier: Apache-2.0
"""Many reads at once: what goes in and what comes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from libmicrovmi_py.errors import AccessError, NotMappedError

Request = tuple[int, memoryview]
"""A guest-physical address and the bytes to fill from there."""


class Result(NamedTuple):
    """The length of the valid prefix, and why it is not all."""

    done: int
    error: AccessError | None


def result(request: Request, done: int) -> Result:
    """What came of a request of which ``done`` bytes exist."""
    address, size = request[0], len(request[1])
    return Result(done, None if done == size else not_mapped(address, size, done))


def read_one(read_into: Callable[[int, memoryview], int], request: Request) -> Result:
    """Do one request by itself."""
    try:
        return result(request, read_into(*request))
    except AccessError as err:
        return Result(err.completed, err)


def not_mapped(address: int, size: int, done: int) -> NotMappedError:
    """The error for a plain access that met a hole after ``done`` bytes."""
    text = f"no memory at physical address {address + done:#x} ({done} of {size} bytes before it)"
    return NotMappedError(text, address=address + done, requested=size, completed=done)
