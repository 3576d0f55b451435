# SPDX-License-Identifier: Apache-2.0
"""A machine as a file, in one call: of one moment where nobody said otherwise and the machine hardly stands for it."""

from __future__ import annotations

import enum
import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.snapshot import SnapshotDriver
from libmicrovmi_py.errors import (
    CancelledError,
    InvalidArgumentError,
    IoError,
    MicrovmiError,
    PermissionDeniedError,
    logger,
    told,
)
from libmicrovmi_py.export.partial import Words, check_free
from libmicrovmi_py.export.view import View, modest, never_changes
from libmicrovmi_py.export.writing import How, Written, format_of, is_stream, write
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.transport.watch import Watch

_log = logger(__name__)


class Moment(enum.IntEnum):
    """Of when a file is; the numbers are those of ``enum microvmi_dump_moment``."""

    STATIC = 1
    SNAPSHOT = 2
    LIVE = 3


class Dumped(NamedTuple):
    """What was written, and of when it is: only one that is ``LIVE`` is of many moments."""

    moment: Moment
    written: Written


class Wanted(NamedTuple):
    """How a file is to be written.

    ``format`` is one of ``export.writing.FORMATS``, ``""`` goes by the file's name, and else is raw. ``view``: ``None``
    is a snapshot where the machine hardly stands for it, else the machine as it runs; who wants it paused pauses it,
    and asks for ``View.LIVE``. ``replace`` a file that is there; ``resume``: go on with what an error left. ``words``
    is what the caller has for that in errors.
    """

    format: str = ""
    view: View | None = None
    resume: bool = False
    replace: bool = False
    words: Words = Words()


AS_USUAL = Wanted()


def dump(
    machine: Microvmi,
    path: str,
    wanted: Wanted = AS_USUAL,
    *,
    timeout: float | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Dumped:
    """Write memory, and registers where the format has them, into ``path``, which is there when it is whole.

    ``progress`` is called with bytes that are done and are to be done, first of a snapshot, then of the file; it ends
    the work by returning ``False``. ``timeout`` is for all of it, in seconds. Raises ``InvalidArgumentError`` for what
    is in the way, ``IoError`` for what cannot be written, ``CancelledError``, ``TimeoutExpiredError``, and what
    snapshots and reading raise.
    """
    if wanted.view is View.PAUSE:
        raise InvalidArgumentError("a machine that is to stand is paused by its caller")
    how = How(wanted.format or format_of(path, "raw"), False, wanted.resume, wanted.replace, wanted.words)
    watch = Watch(progress, timeout, machine.check_wanted)
    with _told():
        if not is_stream(path):
            check_free(path, wanted.words, replace=wanted.replace)
        with _view(machine, wanted, watch) as (view, moment):
            watch.due()
            with watch.limited():
                written = write(view, path, how._replace(instant=moment is Moment.SNAPSHOT), watch.report, _log.info)
    return Dumped(moment, written)


@contextmanager
def _view(machine: Microvmi, wanted: Wanted, watch: Watch) -> Iterator[tuple[Microvmi, Moment]]:
    """What is written."""
    if isinstance(machine.driver, SnapshotDriver):
        yield machine, Moment.SNAPSHOT
    elif never_changes(machine):
        yield machine, Moment.STATIC
    elif wanted.view is View.LIVE or (copy := _copy(machine, wanted, watch)) is None:
        yield machine, Moment.LIVE
    else:
        with copy:
            yield copy, Moment.SNAPSHOT


def _copy(machine: Microvmi, wanted: Wanted, watch: Watch) -> Microvmi | None:
    """A snapshot; ``None`` where nobody asked for one, and it would take long, or cannot be had."""
    asked = wanted.view is View.SNAPSHOT
    try:
        background_only, most = (False, 0) if asked else modest(machine, wanted.words)
        with watch.limited():
            return machine.snapshot(background_only=background_only, max_bytes=most, progress=watch.report)
    except MicrovmiError as err:
        watch.check()
        if asked or isinstance(err, CancelledError):
            raise
        _log.info("the machine is read as it runs, as no snapshot is taken: %s", told(err))
        return None


@contextmanager
def _told() -> Iterator[None]:
    """Errors of the file are the library's."""
    try:
        yield
    except MicrovmiError:
        raise
    except OSError as err:
        refused = err.errno in (errno.EACCES, errno.EPERM)
        text = f"{err.filename}: {err.strerror}" if err.filename is not None else told(err)
        raise (PermissionDeniedError if refused else IoError)(text) from err
