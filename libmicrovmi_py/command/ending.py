# SPDX-License-Identifier: Apache-2.0
"""How the command begins and ends: signals that undo what was done, and standard streams that are there."""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Those that end the command; every ``with`` block and ``finally`` on the way out is run."""

_AGAIN = 0.01
"""Seconds after which a signal comes again that came where an exception is lost."""


class Ended(SystemExit):
    """Raised in the main thread by a signal: 128 and its number is the code."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


def take_signals() -> None:
    """Have signals raise :class:`Ended`. One that was ignored when the command began stays so (``nohup``)."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    """What is undone now is not to be interrupted: it has time limits of its own."""
    if _is_in_del(frame):
        again = threading.Timer(_AGAIN, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()
        return
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise Ended(number)


def _is_in_del(frame: FrameType | None) -> bool:
    """Whether Python would pass over an exception there."""
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


@contextlib.contextmanager
def noted_signals() -> Iterator[Callable[[], None]]:
    """A block in which a signal interrupts nothing: the function that it gets raises :class:`Ended` if one came.

    So does the end of the block, unless it ends by an exception.
    """
    noted: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def look() -> None:
        if noted:
            _end(noted[0], None)

    for number, handler in before.items():
        if handler is _end:
            signal.signal(number, lambda came, _: noted.append(came))
    try:
        yield look
    finally:
        for number, handler in before.items():
            if handler is _end and not noted:
                signal.signal(number, handler)
    look()


def end_by(number: int) -> NoReturn:
    """End as a program does that did not take the signal, so that a shell's loop ends as well."""
    atexit._run_exitfuncs()
    signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
    sys.exit(128 + number)  # of a process that signals do not end: the first of a container


def open_standard_streams() -> None:
    """Take the numbers of those that are closed, so that nothing that is opened gets one.

    Reading from and writing to them fail as they would; what is told on a closed standard error is lost.
    """
    for number, flags in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)
    sys.stdin = sys.stdin or _stream(0, "r")
    sys.stdout = sys.stdout or _stream(1, "w")
    sys.stderr = sys.stderr or _stream(2, "w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _stream(number: int, mode: str) -> io.TextIOWrapper:
    return open(number, mode, closefd=False, errors="backslashreplace", encoding="utf-8")  # type: ignore[return-value]


def leave_standard_output() -> None:
    """What is still to be written there is lost, and nobody is told: its reader is gone, or it cannot be written."""
    with contextlib.suppress(OSError):
        number = os.open(os.devnull, os.O_WRONLY)
        os.dup2(number, 1)
        os.close(number)
