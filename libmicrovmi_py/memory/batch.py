# SPDX-License-Identifier: Apache-2.0
"""Many reads at once: what goes in and what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from libmicrovmi_py.declare import TYPE_CHECKING, NamedTuple
from libmicrovmi_py.errors import AccessError, not_mapped
from libmicrovmi_py.memory.checks import check_address
from libmicrovmi_py.transport.native import native

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Request = tuple[int, memoryview]
"""An address, guest-physical unless it says otherwise, and the bytes to fill from there."""


class Result(NamedTuple):
    """The length of the valid prefix, and why it is not all."""

    done: int
    error: AccessError | None


def checked(
    requests: Iterable[tuple[int, WriteableBuffer]], check: Callable[[int], None] = check_address
) -> list[Request]:
    """Requests whose buffers are bytes and whose addresses can be, as ``check`` has it.

    Raises ``InvalidArgumentError`` for an address that is not within 64 bits, ``TypeError`` for what is no buffer.
    """
    views = [(address, memoryview(buffer).cast("B")) for address, buffer in requests]
    for address, _ in views:
        check(address)
    return views


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


class Whole(dict[int, Result]):
    """The results of requests that were read as a whole, by their size: most are alike."""

    def __missing__(self, size: int) -> Result:
        self[size] = made = Result(size, None)
        return made


def understood(requests: Sequence[tuple[int, WriteableBuffer]], check: Callable[[int], None]) -> list[Request]:
    """Requests as C takes them; raises what is wrong with the first that is none, ``check`` what is with an address."""
    views = checked(requests, check)
    for _, view in views:
        native().ffi.from_buffer("uint8_t[]", view, require_writable=True)
    return views
