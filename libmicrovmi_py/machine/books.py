# SPDX-License-Identifier: Apache-2.0
"""All that one user of a machine did to it, and undoing it in the right order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from libmicrovmi_py.machine import release
from libmicrovmi_py.machine.events import EventSession
from libmicrovmi_py.machine.runstate import RunBooks


class Books:
    """The books of the run state and of events, where the driver has either."""

    def __init__(self, run: RunBooks | None, events: EventSession | None) -> None:
        self._run = run
        self._events = events

    @contextmanager
    def touched(self) -> Iterator[None]:
        """While something is done to the machine, and afterwards if something is to be undone, others know of it."""
        release.add(self)
        try:
            yield
        finally:
            self._discard_if_settled()

    def settle(self) -> None:
        """Leave the machine as if nobody had ever looked: no intercept, nothing unanswered, running if it ran.

        Raises for what could not be undone; it may be called again then.
        """
        self._undo(RunBooks.settle)

    def leave(self) -> None:
        """Give the machine up, which did not answer."""
        if self._run is not None:
            self._run.leave()

    def close(self) -> None:
        """Settle for the last time; whatever a thread is about to do to the machine is refused from now on.

        An interrupt may be raised anywhere on the way (Ctrl-C, a handler of the host's): all of it is done once more
        then, as nobody does it later.
        """
        try:
            self._end()
        except Exception:
            raise
        except BaseException:
            self._end()
            raise
        finally:
            release.discard(self)

    def _end(self) -> None:
        for books in (self._run, self._events):
            if books is not None:
                books.end()
        self._undo(RunBooks.close)

    def _undo(self, settle: Callable[[RunBooks], None]) -> None:
        """Each step is done whatever becomes of the one before. A child undoes nothing of what its parent did."""
        if not release.is_ours(self):
            release.discard(self)
            return
        with ExitStack() as steps:  # the last one first
            steps.callback(self._discard_if_settled)
            if self._run is not None:
                steps.callback(settle, self._run)
            if self._events is not None:
                steps.callback(self._events.release)

    def _discard_if_settled(self) -> None:
        if not any(books is not None and books.owes for books in (self._run, self._events)):
            release.discard(self)
