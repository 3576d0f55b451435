# SPDX-License-Identifier: Apache-2.0
"""What a worker does for one machine: open it, run the function, and bound what comes of it."""

from __future__ import annotations

import itertools
import json
import math
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from libmicrovmi_py.errors import CancelledError, IoError, MicrovmiError, VmGoneError, escaped, told
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.tools.scan import functions, plugin
from libmicrovmi_py.tools.scan.look import Target
from libmicrovmi_py.transport.deadline import limited
from libmicrovmi_py.transport.processes import Process

OPENING = 60.0
"""Seconds that opening a machine may take."""

ROOM = 1 << 16
"""Bytes that an answer may have besides its result."""


MOST_ENDED = 1024
"""Scans that a worker remembers as ended."""


class Job(NamedTuple):
    """What is done with each machine. ``view``: ``live``, ``pause`` or ``snapshot``. ``most``: bytes of a result.

    ``limit``: seconds for one machine; a function of the user's own is left at the next item that it yields. ``scan``
    is what :func:`end` names it by.
    """

    wanted: functions.Wanted
    view: str
    most: int
    limit: float
    scan: str = ""


_open: list[tuple[str, Microvmi]] = []
"""Machines that jobs have open at present, with the scan that each is of."""
_ended: list[str] = []
_lock = threading.Lock()


def end(scan: str) -> None:
    """Close the machines of a scan, which undoes what was done to them; what goes on by itself gets errors.

    The thread of a function cannot be ended, and a worker that is told to end by its engine may do so at once.
    """
    with _lock:
        _ended.append(scan)
        del _ended[:-MOST_ENDED]
        machines = [machine for name, machine in _open if name == scan]
    for machine in machines:
        machine.close()


def run(target: Target, job: Job) -> bytes:
    """JSON of ``result`` and ``seconds``, with ``more`` where there was more than may be, or of ``error``."""
    begin = time.monotonic()
    try:
        answer: dict[str, Any] = _answer(target, job)
    except MicrovmiError as err:
        answer = {"error": told(err)}
    except Exception as err:  # the user's own code
        answer = {"error": escaped(f"the function raised {type(err).__name__}: {err}")}
    seconds = round(time.monotonic() - begin, 3)
    return json.dumps({**answer, "seconds": seconds}, allow_nan=False).encode()


def checked(answer: object, job: Job) -> dict[str, Any]:
    """An answer as a worker may give it. Raises ``IoError`` for what is none."""
    if not isinstance(answer, bytes) or len(answer) > job.most + ROOM:
        raise IoError(f"a worker gave no answer of {job.most + ROOM} bytes at the most")
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not found.keys() <= {"result", "more", "error", "seconds"}:
        raise IoError("a worker gave an answer that is none")
    if "error" in found:
        found["error"] = escaped(str(found["error"]))
    return found


def _answer(target: Target, job: Job) -> dict[str, Any]:
    if target.reason:
        raise IoError(target.reason)
    if job.wanted.function == functions.OF_PLUGINS:
        return plugin.answer(target.uri, job.wanted.words, job.view, job.most, job.limit)
    called = functions.function(job.wanted)
    deadline = time.monotonic() + job.limit
    with _viewed(target, job) as machine:
        return bounded(called(machine, *job.wanted.words), job.most, deadline)


@contextmanager
def _viewed(target: Target, job: Job) -> Iterator[Microvmi]:
    """The machine as it is to be read; whatever was done to it is undone at the end of the block."""
    with limited(OPENING):
        opened = Microvmi.open(target.uri)
    with opened as machine, _known(job.scan, machine):
        process = Process.find(target.process_id) if target.process_id else None
        if target.process_id and (process is None or process.start_time != target.started):
            raise VmGoneError(f"the machine {target.name} ended: its process {target.process_id} is not there any more")
        if job.view == "pause":
            machine.pause()
        if job.view != "snapshot" or machine.driver.static:
            yield machine
            return
        with machine.snapshot() as copy:
            yield copy


@contextmanager
def _known(scan: str, machine: Microvmi) -> Iterator[None]:
    """Within the block :func:`end` closes the machine. Raises ``CancelledError`` if the scan has ended already."""
    with _lock:
        if scan in _ended:
            raise CancelledError("the scan was ended")
        _open.append((scan, machine))
    try:
        yield
    finally:
        with _lock:
            _open.remove((scan, machine))


def bounded(result: Any, most: int, deadline: float = math.inf) -> dict[str, Any]:
    """``result``, and ``more`` if an iterator had more items than ``most`` bytes of JSON hold, or time was over.

    Raises ``IoError`` for a result in one piece that is larger, or that JSON cannot say.
    """
    if isinstance(result, Iterator):
        return _items(result, most, deadline)
    return {"result": _plain(result, most)}


def _items(items: Iterable[Any], most: int, deadline: float) -> dict[str, Any]:
    taken: list[Any] = []
    left = most
    for item in items:
        text = _encoded(item, left)
        if text is None or time.monotonic() > deadline:
            return {"result": taken, "more": True}
        left -= len(text) + 2
        taken.append(json.loads(text))
    return {"result": taken}


def _plain(value: Any, most: int) -> Any:
    text = _encoded(value, most)
    if text is None:
        raise IoError(f"the result takes more than {most} bytes: --most allows more")
    return json.loads(text)


def _encoded(value: Any, most: int) -> str | None:
    """JSON of a value, ``None`` if it has more than ``most`` characters. Raises ``IoError`` if JSON cannot say it."""
    parts: list[str] = []
    left = most
    try:
        for part in json.JSONEncoder(allow_nan=False, default=_digits).iterencode(value):
            parts.append(part)
            left -= len(part)
            if left < 0:
                return None
    except (TypeError, ValueError, RecursionError) as err:
        raise IoError(f"the result of the function is nothing that JSON can say: {err}") from err
    return "".join(parts)


def _digits(value: object) -> object:
    """What JSON cannot say by itself: bytes, and things to go through."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, Iterable):
        return list(itertools.islice(value, 1 << 20))
    raise TypeError(f"a {type(value).__name__}")
