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

from libmicrovmi_py.command.kit import Failure
from libmicrovmi_py.declare import NamedTuple

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


class Partial:
    """The file of one subject, as a block: when that ends without an error the file is whole."""

    def __init__(self, path: str, subject: Subject, *, resume: bool, force: bool) -> None:
        """Raises :class:`Failure` for what is in the way, ``OSError``. ``done`` bytes are there already."""
        self.path = path
        self._name = path + ENDING
        self.subject = subject
        self.done = 0
        check_free(path, force=force)
        self.number = self._opened()
        try:
            self._begin(resume=resume, force=force)
        except BaseException:
            os.close(self.number)
            raise
        self._next = time.monotonic() + _EVERY

    def _opened(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        number = os.open(self._name, flags, 0o600)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not stat.S_ISREG(os.fstat(number).st_mode):
                raise Failure(f"{self._name} is no file")
        except BlockingIOError:
            os.close(number)
            raise Failure(f"{self._name} is being written by another process") from None
        except BaseException:
            os.close(number)
            raise
        return number

    def _begin(self, *, resume: bool, force: bool) -> None:
        """Go on with what is there, or begin anew."""
        length = os.fstat(self.number).st_size
        found = _record(self.number, length) if length else None
        if length and not force:
            self.done = self._continued(found, resume=resume)
        os.ftruncate(self.number, self.done)
        os.ftruncate(self.number, self.subject.size + _PAGE)
        self.note(self.done)

    def _continued(self, found: tuple[Subject, int] | None, *, resume: bool) -> int:
        """How far an earlier run came. Raises :class:`Failure` unless it was of the same, and is to be gone on with."""
        if found is None:
            raise Failure(f"{self._name} is there, and nothing that can be gone on with: --force replaces it")
        before, done = found
        if before.instant:  # it was killed, or it would have taken that away
            if resume:
                raise Failure(f"{self._name} is of a moment that is over: --force begins anew")
            return 0
        if not resume:
            raise Failure(f"{self._name} is what an earlier run left: --resume goes on with it, --force begins anew")
        if self.subject.instant:
            raise Failure(f"{self._name} is of many moments: a snapshot cannot go on with it, --live can")
        if not self.subject.machine:
            raise Failure("this machine cannot be told from another one: --force begins anew")
        if before.machine != self.subject.machine:
            raise Failure(f"{self._name} is of another machine ({before.machine}): --force begins anew")
        if before != self.subject:
            raise Failure(f"{self._name} is of another format, or the machine's memory changed: --force begins anew")
        return done

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

    @property
    def resumable(self) -> bool:
        """Whether another run can go on with it."""
        return not self.subject.instant and bool(self.subject.machine)

    def __enter__(self) -> Partial:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if err is None:
                os.ftruncate(self.number, self.subject.size)
                os.replace(self._name, self.path)
            elif not self.resumable:
                os.unlink(self._name)
        finally:
            os.close(self.number)


def check_free(path: str, *, force: bool) -> None:
    """Raise :class:`Failure` if there is such a file."""
    if not force and os.path.lexists(path):
        raise Failure(f"{path} is there already: --force replaces it")


def is_resumable(path: str) -> bool:
    """Whether there is something of this file that a run can go on with, by its own word."""
    try:
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
