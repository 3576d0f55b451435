# SPDX-License-Identifier: Apache-2.0
"""Which machine a context stands for, and who is using it: a machine is closed when its last user is done."""

from __future__ import annotations

import threading
from collections.abc import Callable

from _libmicrovmi import ffi, lib

from libmicrovmi_py.errors import InvalidContextError
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.memory.direct import Table
from libmicrovmi_py.memory.io import Cursor
from libmicrovmi_py.transport.native import native


class Handle:
    """A context's machine, and the calls under way on it. ``follows``: its table may change with a read.

    ``read_within`` is that of the machine's memory, looked up once.
    """

    __slots__ = ("_idle", "_published", "_publishing", "context", "follows", "machine", "read_within", "users")

    def __init__(self, context: int, machine: Microvmi, *, follows: bool = True) -> None:
        self.context = context
        self.machine = machine
        self.follows = follows
        self.read_within: Callable[[int, memoryview], None]
        self.users: list[None] = []  # one for each call: a list grows and shrinks at once, without a lock
        self._idle: threading.Event | None = None  # of who waits for them
        self._published: Table | None = None
        self._publishing = threading.Lock()

    def publish(self) -> None:
        """Let C read through the machine's present table; the one before goes when its last reader is done."""
        if self.machine.physical.table() is self._published:
            return
        with self._publishing:
            table = self.machine.physical.table()
            if table is self._published:
                return
            cursors = (self.machine.memory.cursor, self.machine.padded_memory.cursor)
            pointers = [native().ffi.NULL if table is None else table.pointer, *(cursor.pointer for cursor in cursors)]
            kinds = ("struct mvi_table *", "struct mvi_cursor *", "struct mvi_cursor *")
            addresses = [int(native().ffi.cast("uintptr_t", pointer)) for pointer in pointers]
            if lib.mvi_context_publish(self.context, *map(ffi.cast, kinds, addresses)):
                if self._published is not None:
                    self._leave_to_readers()
                self._published = table  # else the one before may be in use until the context's end is over

    def _leave_to_readers(self) -> None:
        """A read that does not end goes on with what it began with, which has to stay until then."""
        with _lock:
            _left[:] = [kept for kept in _left if _is_read(kept[0])]
            if self._published is not None and _is_read(self._published):
                _left.append((self._published, self.machine.memory.cursor, self.machine.padded_memory.cursor))

    def leave(self) -> None:
        """The end of a call that :func:`enter` began."""
        self.users.pop()
        if self._idle is not None and not self.users:
            self._idle.set()

    def await_users(self) -> None:
        """Return when no call is under way; no other can begin any more."""
        if not self.users:
            return
        self._idle = threading.Event()
        while self.users:
            self._idle.wait()

    def close(self) -> None:
        """The context is at its end; reads that were under way have ended, or been waited for in vain."""
        self._leave_to_readers()
        self._published = None


def _is_read(table: Table) -> bool:
    pointer = int(native().ffi.cast("uintptr_t", table.pointer))
    used: bool = lib.mvi_context_reads(ffi.cast("struct mvi_table *", pointer))
    return used


_left: list[tuple[Table, Cursor, Cursor]] = []
"""Tables that are replaced and still read through, with the cursors of their contexts."""

_lock = threading.Lock()
_handles: dict[int, Handle] = {}


def add(context: int, machine: Microvmi) -> None:
    """From now on ``context`` stands for ``machine``, also in what C tells of it."""
    handle = Handle(context, machine, follows=machine.physical.direct is not None)
    handle.read_within = machine.physical.read_within
    _handles[context] = handle
    machine.physical.follow(handle.publish)
    try:
        handle.publish()
    except BaseException:
        del _handles[context]
        machine.close()
        raise
    lib.mvi_context_describe(ffi.cast("void *", context), machine.driver_type, machine.driver.name.encode())


def enter(context: int) -> Handle:
    """The handle of ``context``, whose machine is not closed before :meth:`Handle.leave`."""
    handle = _handles.get(context)
    if handle is not None:
        handle.users.append(None)
        if context in _handles:  # looked at once more: whoever removes it counts the users afterwards
            return handle
        handle.leave()
    raise InvalidContextError("the context is not live: it was destroyed")


def remove(context: int) -> Microvmi:
    """Forget ``context``, wait until nobody uses its machine, and return it."""
    handle = _handles.pop(context, None)
    if handle is None:
        raise InvalidContextError("the context is not live: it was destroyed")
    handle.machine.stop_listening()
    handle.machine.end_snapshots()
    handle.await_users()
    handle.close()
    return handle.machine
