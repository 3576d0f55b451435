# SPDX-License-Identifier: Apache-2.0
"""Leaving machines as they were found: what this process did to them, and undoing all of it within one time limit."""

from __future__ import annotations

import atexit
import os

from libmicrovmi_py.declare import Protocol
from libmicrovmi_py.errors import (
    DriverUnavailableError,
    InvalidArgumentError,
    MicrovmiError,
    TimeoutExpiredError,
    listed,
    logger,
    told,
)
from libmicrovmi_py.transport.deadline import Deadline, limited

_log = logger(__name__)

EXIT_LIMIT = 10.0
"""Seconds that everything together may take at the end of the process."""

_FIRST_TURN = 0.5
"""Seconds for a machine in the first round, at the most."""

_ROUNDS = 4
"""So many turns a machine that does not answer gets."""


class Touched(Protocol):
    """A machine to which something was done."""

    def settle(self) -> None:
        """Undo it, as far as it is ours. Raises for what could not be undone; it may be called again then."""

    def leave(self) -> None:
        """Give it up: it did not answer."""


_touched: dict[int, tuple[Touched, int]] = {}
"""Machines to which something was, or may have been, done, with the process that did; kept alive until it is undone."""


def add(machine: Touched) -> None:
    """Note that something is about to be done to a machine."""
    _touched[id(machine)] = (machine, os.getpid())


def discard(machine: Touched) -> None:
    """Note that nothing is to be undone."""
    _touched.pop(id(machine), None)


def is_ours(machine: Touched) -> bool:
    """Whether this process did something to it: a child does not undo what its parent did."""
    return _touched.get(id(machine), (None, 0))[1] == os.getpid()


def release_all(timeout: float) -> None:
    """Undo what this process did to its machines: intercepts, page accesses and pauses, within ``timeout`` seconds.

    Machines stay open, and what is done to them afterwards is undone as ever. For an ordinary thread; a program that
    is to end by a signal calls it when it has taken the signal. Raises the error of the one machine that could not be
    settled; of several, one of the first's kind with all their texts.
    """
    if timeout < 0:
        raise InvalidArgumentError(f"timeout is {timeout:g}: it cannot be less than 0 seconds")
    failures = _settle_in_rounds([machine for machine, pid in list(_touched.values()) if pid == os.getpid()], timeout)
    for machine, err in failures:
        _log.error("not undone: %s", _text(err))
        if _may_pass(err):
            _give_up(machine)
    if failures:
        kind = next((type(err) for _, err in failures if isinstance(err, MicrovmiError)), MicrovmiError)
        raise kind(listed([_text(err) for _, err in failures], separator="; "))


def _settle_in_rounds(machines: list[Touched], timeout: float) -> list[tuple[Touched, BaseException]]:
    """Settle each by itself. One that does not answer gets another, longer turn when the others had theirs."""
    deadline = Deadline(timeout)
    failures: list[tuple[Touched, BaseException]] = []
    left: list[tuple[Touched, BaseException]] = []
    turn = min(_FIRST_TURN, timeout / (2 * len(machines))) if machines else 0.0
    for _ in range(_ROUNDS):
        errors = [(machine, _attempt(machine, min(turn, deadline.remaining))) for machine in machines]
        failed = [(machine, err) for machine, err in errors if err is not None]
        again = [machine for machine, err in failed if _may_pass(err)]
        failures += [(machine, err) for machine, err in failed if machine not in again]
        left = [(machine, err) for machine, err in failed if machine in again]
        if not again or deadline.expired:
            break
        machines, turn = again, max(2 * turn, deadline.remaining / (2 * len(again)))
    return failures + left


def _attempt(machine: Touched, seconds: float) -> BaseException | None:
    """One that fails, in whatever way, keeps nobody from the others."""
    try:
        with limited(seconds):
            machine.settle()
    except BaseException as err:
        return err
    return None


def _give_up(machine: Touched) -> None:
    try:
        machine.leave()
    except Exception as err:
        _log.error("nothing was left with the machine: %s", _text(err))


def _may_pass(err: BaseException) -> bool:
    return isinstance(err, (TimeoutExpiredError, DriverUnavailableError))


def _text(err: BaseException) -> str:
    """What is told: an exception that is not ours is a defect of a driver, and its kind tells more than its text."""
    return told(err) if isinstance(err, MicrovmiError) else f"{type(err).__name__}: {told(err)}"


def _at_exit() -> None:
    try:
        release_all(EXIT_LIMIT)
    except MicrovmiError:
        _log.debug("told above")


atexit.register(_at_exit)
