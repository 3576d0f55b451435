# SPDX-License-Identifier: Apache-2.0
"""Read functions of hypervisors' libraries, which C calls by itself, and what C and Python share to call them."""

from __future__ import annotations

import enum
import errno
from collections.abc import Iterable

from libmicrovmi_py.declare import Any
from libmicrovmi_py.transport.native import native

_NANOSECONDS = 1_000_000_000
_LONGEST = 1e6
"""Seconds; a longer limit is none."""


def _nanoseconds(seconds: float) -> int:
    return int(min(seconds, _LONGEST) * _NANOSECONDS)


class Order(enum.IntEnum):
    """What a read function takes after its handle, in which order, and what it returns."""

    ADDRESS_BUFFER_SIZE = 0
    """``int f(handle, unsigned long long, void *, size_t)``: 0 is success, else ``errno`` has the reason."""
    BUFFER_SIZE_ADDRESS = 1
    """``bool f(handle, uint8_t *, uint32_t, uint64_t)``: true is success."""


class Line:
    """The way to a library's handle, shared by all of this process who call it: C without Python, and Python.

    Who calls joins before and parts after it. ``single`` is for a library that takes one call at a time: each then
    takes the lock and says until when its call may last. ``held`` is a byte that is not 0 while another process's call
    is under way; C calls nothing then. Once the line is broken C calls nothing any more.
    """

    def __init__(self, held: memoryview | None = None, *, single: bool = False) -> None:
        ffi, self._lib = native()
        self._held = held
        flag = ffi.NULL if held is None else ffi.cast("uint8_t *", ffi.from_buffer(held))
        made = self._lib.mvi_line_new(single, flag)
        if made == ffi.NULL:
            raise MemoryError("no memory for the way to a library")
        self.pointer: Any = ffi.gc(made, self._lib.mvi_line_free)

    def join(self) -> bool:
        """Begin to use the handle; ``False``, with nothing done, once the line is shut."""
        joined: bool = self._lib.mvi_line_join(self.pointer)
        return joined

    def part(self) -> None:
        """The end of a use."""
        self._lib.mvi_line_part(self.pointer)

    def shut(self) -> None:
        """Let nobody join any more."""
        self._lib.mvi_line_shut(self.pointer)

    def wait(self, seconds: float) -> bool:
        """Wait until nobody uses the handle; whether that is so."""
        unused: bool = self._lib.mvi_line_wait(self.pointer, _nanoseconds(seconds))
        return unused

    @property
    def broken(self) -> int:
        """The ``errno`` for which nothing can be asked any more, 0 for none."""
        return int(self._lib.mvi_line_broken(self.pointer))

    def break_(self, reason: int = errno.EIO) -> None:
        """Nothing can be asked any more; the first reason counts."""
        self._lib.mvi_line_break(self.pointer, reason)

    def mend(self) -> None:
        """All is well again."""
        self._lib.mvi_line_mend(self.pointer)

    def lock(self, seconds: float) -> bool:
        """Take a single line within a time, 0 for at once; to be given back by the same thread."""
        taken: bool = self._lib.mvi_line_lock(self.pointer, _nanoseconds(seconds))
        return taken

    def unlock(self) -> None:
        """Give it back."""
        self._lib.mvi_line_unlock(self.pointer)

    def begin(self, end: float) -> None:
        """Say until when, by ``time.monotonic``, the call may last that who has the lock makes now."""
        self._lib.mvi_line_begin(self.pointer, _nanoseconds(end))

    def end(self) -> bool:
        """The end of that call; ``False`` if it was given up, and what it returned is not to be believed."""
        believed: bool = self._lib.mvi_line_end(self.pointer)
        return believed

    @property
    def busy(self) -> bool:
        """Whether such a call is under way."""
        busy: bool = self._lib.mvi_line_busy(self.pointer)
        return busy

    def give_up(self) -> bool:
        """Give the call under way up if its time is over: whether that was done. The line is then broken."""
        given_up: bool = self._lib.mvi_line_give_up(self.pointer)
        return given_up


class ForeignReads:
    """How C reads through a library's function: its address, its handle, the order of its arguments.

    ``end`` is where nothing exists any more, ``most`` how many bytes one call takes, ``crosses`` whether a call may
    cross frames, ``limit`` how many seconds a call may last on a single line, ``lasting`` the values of ``errno`` after
    which nothing can be asked any more, ``keeps`` what has to stay as long as this. The function opens no descriptors.
    """

    def __init__(
        self,
        line: Line,
        function: int,
        handle: int,
        order: Order,
        *,
        end: int,
        most: int,
        crosses: bool,
        limit: float = 0.0,
        lasting: Iterable[int] = (),
        keeps: object = None,
    ) -> None:
        ffi, self._lib = native()
        self._kept = line, keeps  # have to outlive it
        bits = sum(1 << number for number in set(lasting))
        reasons = [bits >> 64 * part & (1 << 64) - 1 for part in range(4)] if bits else []
        told = {
            "function": function,
            "handle": handle,
            "order": order,
            "end": end,
            "most": most,
            "crosses": crosses,
            "limit": _nanoseconds(limit),
            "lasting": reasons,
        }
        made = self._lib.mvi_foreign_new(ffi.new("struct mvi_reads *", told), line.pointer)
        if made == ffi.NULL:
            raise MemoryError("no memory for the way to a library")
        self.pointer: Any = ffi.gc(made, self._lib.mvi_foreign_free)

    def close(self) -> None:
        """From now on C reads nothing; a read under way ends as it does."""
        self._lib.mvi_foreign_close(self.pointer)
