# SPDX-License-Identifier: Apache-2.0
"""A file that is being written: under another name until it is whole, with what is needed to go on with it later.

``FILE.partial`` is as large as the file will be, and one page larger: the page behind the end is a record in JSON, of
what the file is of and how far it is. It goes when the file is whole, and gets its name.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from types import TracebackType

from libmicrovmi_py.declare import TYPE_CHECKING, NamedTuple
from libmicrovmi_py.errors import InvalidArgumentError
from libmicrovmi_py.transport.fds import StandardStreamsHeld

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

ENDING = ".partial"

_PAGE = 4096
_VERSION = 1
_EVERY = 1.0
"""Seconds between two records of how far it is."""


class Subject(NamedTuple):
    """What a file is of. Two that are equal are one file, which may be written in two goes.

    ``machine`` is its driver and what no other machine has, ``""`` if that is not known. ``layout`` stands for which
    byte of the file is which of the machine. ``instant`` is whether all of it is of one moment, which no second go
    has.
    """

    machine: str
    format: str
    layout: str
    size: int
    instant: bool


class Words(NamedTuple):
    """What the caller has to say to have a file replaced, to go on with one, and which view of a machine he wants."""

    replace: str = "replace=True"
    resume: str = "resume=True"
    live: str = "View.LIVE"
    snapshot: str = "View.SNAPSHOT"


class Partial:
    """The file of one subject, as a block: when that ends without an error the file is whole.

    ``size`` is that of the whole file, in bytes: who did not know it before sets it before the block ends.
    """

    def __init__(self, path: str, subject: Subject, words: Words, *, resume: bool, replace: bool) -> None:
        """Raises ``InvalidArgumentError`` for what is in the way, ``OSError``. ``done`` bytes are there already."""
        self.path = path
        self._name = path + ENDING
        self.subject = subject
        self.size = subject.size
        self.done = 0
        self._words = words
        check_free(path, words, replace=replace)
        self.number = self._opened()
        try:
            self._begin(resume=resume, replace=replace)
        except BaseException:
            os.close(self.number)
            raise
        self._next = time.monotonic() + _EVERY

    def _opened(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with StandardStreamsHeld():
            number = os.open(self._name, flags, 0o600)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not stat.S_ISREG(os.fstat(number).st_mode):
                raise InvalidArgumentError(f"{self._name} is no file")
        except BlockingIOError:
            os.close(number)
            raise InvalidArgumentError(f"{self._name} is being written by another process") from None
        except BaseException:
            os.close(number)
            raise
        return number

    def _begin(self, *, resume: bool, replace: bool) -> None:
        """Go on with what is there, or begin anew."""
        length = os.fstat(self.number).st_size
        found = _record(self.number, length) if length else None
        if length and not replace:
            self.done = self._continued(found, resume=resume)
        os.ftruncate(self.number, self.done)
        os.ftruncate(self.number, self.subject.size + _PAGE)
        self.note(self.done)

    def _continued(self, found: tuple[Subject, int] | None, *, resume: bool) -> int:
        """How far an earlier run came.

        Raises ``InvalidArgumentError`` unless it was of the same, and is to be gone on with.
        """
        anew = f"{self._words.replace} begins anew"
        if found is None:
            text = f"{self._name} is there, and nothing that can be gone on with"
            raise InvalidArgumentError(f"{text}: {self._words.replace} replaces it")
        before, done = found
        if before.instant:  # it was killed, or it would have taken that away
            if resume:
                raise InvalidArgumentError(f"{self._name} is of a moment that is over: {anew}")
            return 0
        if not resume:
            text = f"{self._name} is what an earlier run left"
            raise InvalidArgumentError(f"{text}: {self._words.resume} goes on with it, {anew}")
        if self.subject.instant:
            text = f"{self._name} is of many moments"
            raise InvalidArgumentError(f"{text}: a snapshot cannot go on with it, {self._words.live} can")
        if not self.subject.machine:
            raise InvalidArgumentError(f"this machine cannot be told from another one: {anew}")
        if before.machine != self.subject.machine:
            raise InvalidArgumentError(f"{self._name} is of another machine ({before.machine}): {anew}")
        if before != self.subject:
            text = f"{self._name} is of another format, or the machine's memory changed"
            raise InvalidArgumentError(f"{text}: {anew}")
        return done

    def put(self, offset: int, content: ReadableBuffer) -> None:
        """Write these bytes of the file."""
        view = memoryview(content)
        while view:
            done = os.pwrite(self.number, view, offset)
            view, offset = view[done:], offset + done

    def note(self, done: int) -> None:
        """So many bytes from the start are there."""
        self.done = done
        text = json.dumps({"microvmi": _VERSION, **self.subject._asdict(), "done": done})
        os.pwrite(self.number, text.encode().ljust(_PAGE), self.subject.size)
        self._next = time.monotonic() + _EVERY

    def reached(self, done: int) -> None:
        """As :meth:`note`; it is written down now and then."""
        self.done = done
        if time.monotonic() >= self._next:
            self.note(done)

    def left(self) -> str:
        """What another run can do with it, in a line."""
        there, all_of_it = (f"{size / (1 << 20):.1f} MiB" for size in (self.done, self.subject.size))
        return f"{self._name} has {there} of {all_of_it}: {self._words.resume} goes on with it"

    @property
    def resumable(self) -> bool:
        """Whether another run can go on with it."""
        return not self.subject.instant and bool(self.subject.machine)

    def __enter__(self) -> Partial:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if err is None:
                os.ftruncate(self.number, self.size)
                os.replace(self._name, self.path)
            elif self.resumable:
                self.note(self.done)
            else:
                os.unlink(self._name)
        finally:
            os.close(self.number)


def check_free(path: str, words: Words, *, replace: bool) -> None:
    """Raise ``InvalidArgumentError`` if there is such a file."""
    if not replace and os.path.lexists(path):
        raise InvalidArgumentError(f"{path} is there already: {words.replace} replaces it")


def is_resumable(path: str) -> bool:
    """Whether there is something of this file that a run can go on with, by its own word."""
    try:
        with StandardStreamsHeld():
            number = os.open(path + ENDING, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        found = _record(number, os.fstat(number).st_size)
    finally:
        os.close(number)
    return found is not None and not found[0].instant


def _record(number: int, length: int) -> tuple[Subject, int] | None:
    """What the page at the end says; ``None`` for what is no such page."""
    try:
        told = json.loads(os.pread(number, _PAGE, max(length - _PAGE, 0)))
        version, done = told.pop("microvmi"), told.pop("done")
        subject = Subject(**told)
        right = version == _VERSION and 0 <= done <= subject.size == length - _PAGE
    except (ValueError, TypeError, KeyError, AttributeError, OSError):
        return None
    return (subject, done) if right else None
