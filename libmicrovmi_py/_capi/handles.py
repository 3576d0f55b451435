# SPDX-License-Identifier: Apache-2.0
"""Which machine a context stands for, and who is using it: a machine is closed when its last user is done."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from libmicrovmi_py.errors import InvalidContextError
from libmicrovmi_py.microvmi import Microvmi


class _Handle:
    def __init__(self, machine: Microvmi) -> None:
        self.machine = machine
        self.users = 0
        self.idle = threading.Condition(_lock)


_lock = threading.Lock()
_handles: dict[int, _Handle] = {}


def add(context: int, machine: Microvmi) -> None:
    """From now on ``context`` stands for ``machine``."""
    with _lock:
        _handles[context] = _Handle(machine)


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
        handle.idle.wait_for(lambda: handle.users == 0)
    return handle.machine
