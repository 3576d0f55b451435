# SPDX-License-Identifier: Apache-2.0
"""Which machine a context stands for, and who is using it: a machine is closed when its last user is done."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from _libmicrovmi import ffi, lib

from libmicrovmi_py.errors import InvalidContextError, VmGoneError
from libmicrovmi_py.memory.direct import Table
from libmicrovmi_py.memory.io import Cursor
from libmicrovmi_py.memory.native import native
from libmicrovmi_py.microvmi import Microvmi


class _Handle:
    def __init__(self, context: int, machine: Microvmi) -> None:
        self.context = context
        self.machine = machine
        self.users = 0
        self.idle = threading.Condition(_lock)
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
                self._leave_to_readers()
                self._published = table  # else the one before may be in use until the context's end is over

    def _leave_to_readers(self) -> None:
        """A read that does not end goes on with what it began with, which has to stay until then."""
        with _lock:
            _left[:] = [kept for kept in _left if _is_read(kept[0])]
            if self._published is not None and _is_read(self._published):
                _left.append((self._published, self.machine.memory.cursor, self.machine.padded_memory.cursor))

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
_handles: dict[int, _Handle] = {}


def add(context: int, machine: Microvmi) -> None:
    """From now on ``context`` stands for ``machine``."""
    with _lock:
        _handles[context] = handle = _Handle(context, machine)
    machine.table_changed = handle.publish
    try:
        handle.publish()
    except BaseException:
        with _lock:
            del _handles[context]
        machine.close()
        raise


@contextmanager
def using(context: int) -> Iterator[Microvmi]:
    """The machine of ``context``, which is not closed before the block ends."""
    with _lock:
        handle = _handles.get(context)
        if handle is None:
            raise InvalidContextError("the context is not live: it was destroyed")
        handle.users += 1
    try:
        yield handle.machine
        handle.publish()
    except VmGoneError:
        handle.publish()  # of a machine that was migrated away C may read nothing any more
        raise
    finally:
        with _lock:
            handle.users -= 1
            handle.idle.notify_all()


def remove(context: int) -> Microvmi:
    """Forget ``context``, wait until nobody uses its machine, and return it."""
    with _lock:
        handle = _handles.pop(context, None)
        if handle is None:
            raise InvalidContextError("the context is not live: it was destroyed")
        handle.machine.stop_listening()
        handle.idle.wait_for(lambda: handle.users == 0)
    handle.close()
    return handle.machine
