# SPDX-License-Identifier: Apache-2.0
"""The ring in a shared page over which Xen sends requests and takes responses, seen from its back end.

A page begins with four counters (requests made, and at which one to wake us; responses made, and at which one to wake
Xen); entries of one size follow, a power of two of them. Counters run on and wrap at 2^32.
"""

from __future__ import annotations

from libmicrovmi_py.errors import IoError

_REQUESTS, _REQUEST_EVENT, _RESPONSES, _RESPONSE_EVENT = range(4)
_HEADER = 64
_WRAP = 1 << 32


class BackRing:
    """Takes requests and puts responses, in any order, each once. Not for several threads at once."""

    def __init__(self, page: memoryview, size: int) -> None:
        """``page``: the shared page, writable; ``size``: bytes of an entry."""
        self._counters = page[:_HEADER].cast("I")  # read and written as a whole, each
        self._entries = page[_HEADER:]
        self._size = size
        self._count = 1 << ((len(page) - _HEADER) // size).bit_length() - 1
        self._taken = self._answered = 0

    def initialise(self) -> None:
        """Make the page an empty ring."""
        for index in range(len(self._counters)):
            self._counters[index] = 0
        self._counters[_REQUEST_EVENT] = self._counters[_RESPONSE_EVENT] = 1

    @property
    def unanswered(self) -> int:
        """How many requests have no response, taken or not."""
        return (self._counters[_REQUESTS] - self._answered) % _WRAP

    def take(self) -> bytes | None:
        """The next request, ``None`` without one. Raises ``IoError`` for counters that cannot be."""
        waiting = (self._counters[_REQUESTS] - self._taken) % _WRAP
        if not waiting:
            return None
        if waiting > self._count:
            raise IoError(f"Xen's ring of events is broken: {waiting} requests in {self._count} places")
        start = self._place(self._taken)
        request = bytes(self._entries[start : start + self._size])
        self._taken = (self._taken + 1) % _WRAP
        self._counters[_REQUEST_EVENT] = (self._taken + 1) % _WRAP
        return request

    def put(self, response: bytes) -> None:
        """Add a response; Xen has to be told."""
        start = self._place(self._answered)
        self._entries[start : start + self._size] = response
        self._answered = (self._answered + 1) % _WRAP
        self._counters[_RESPONSES] = self._answered

    def _place(self, counter: int) -> int:
        return (counter % self._count) * self._size
