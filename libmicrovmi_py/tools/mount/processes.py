# SPDX-License-Identifier: Apache-2.0
"""The processes of a Linux guest, by number, and the texts of their files. Names and paths are the guest's: escaped."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable

from libmicrovmi_py.declare import TYPE_CHECKING, Protocol
from libmicrovmi_py.errors import escaped

if TYPE_CHECKING:
    from libmicrovmi_py.linux.maps import Mapping
    from libmicrovmi_py.memory.virtual import AddressSpace

_FRESH = 0.2
"""So many seconds a list of a guest that runs is good for whoever looks at several files of a process."""
_MOST_MAPPINGS = 1 << 17
_HIGHEST = 1 << 22
"""No Linux has a process of a higher number."""


class Process(Protocol):
    """What of a ``linux.tasks.Task`` is in the files."""

    @property
    def pid(self) -> int: ...

    @property
    def name(self) -> bytes: ...

    @property
    def space(self) -> AddressSpace | None: ...

    def maps(self) -> Iterable[Mapping]: ...


class Processes:
    """Those that ``look`` finds, at the moment or (``fixed``) for good. A number that none has is ``KeyError``."""

    def __init__(self, look: Callable[[], Iterable[Process]], fixed: bool) -> None:
        self._look, self._fixed = look, fixed
        self._found: dict[int, Process] = {}
        self._until = 0.0
        self._looking = threading.Lock()

    def numbers(self) -> Iterable[int]:
        """Their numbers, ascending."""
        return sorted(self._present())

    def number_of(self, name: str) -> int:
        """The process whose folder has that name."""
        if not (name.isascii() and name.isdigit() and len(name) <= 7 and str(int(name)) == name):
            raise KeyError(name)
        return self._process(int(name)).pid

    def has_memory(self, number: int) -> bool:
        """Whether it has memory of its own: threads of the kernel have none."""
        return self._process(number).space is not None

    def space(self, number: int) -> AddressSpace:
        """Its memory."""
        space = self._process(number).space
        if space is None:
            raise KeyError(number)
        return space

    def name(self, number: int) -> bytes:
        """The name that the kernel has for it, in a line."""
        return _text(self._process(number).name).encode() + b"\n"

    def maps(self, number: int) -> bytes:
        """What it has mapped, as lines of /proc/PID/maps, without what that has of the file's device."""
        found = itertools.islice(self._process(number).maps(), _MOST_MAPPINGS)
        return "".join(f"{_line(item)}\n" for item in found).encode()

    def _process(self, number: int) -> Process:
        return self._present()[number]

    def _present(self) -> dict[int, Process]:
        with self._looking:
            now = time.monotonic()
            if now >= self._until:
                self._found = {process.pid: process for process in self._look() if 0 < process.pid <= _HIGHEST}
                self._until = float("inf") if self._fixed else time.monotonic() + _FRESH
            return self._found


def _line(item: Mapping) -> str:
    place = f"{item.start:08x}-{item.end:08x} {item.rights} {item.offset:08x}"
    return f"{place} {_text(item.path)}" if item.path else place


def _text(name: bytes) -> str:
    return escaped(name.decode("utf-8", "surrogateescape"))
