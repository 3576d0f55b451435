# SPDX-License-Identifier: Apache-2.0
"""The books of the run state: whose stop it is, what a late answer means, and when a machine may be let run."""

from __future__ import annotations

import os
import time

import pytest

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.control import RUNS, STOPPED, Phase, RunState
from libmicrovmi_py.drivers.fake import FakeDriver
from libmicrovmi_py.errors import (
    DriverUnavailableError,
    InvalidContextError,
    IoError,
    TimeoutExpiredError,
    VmGoneError,
)
from libmicrovmi_py.machine.runstate import RunBooks
from libmicrovmi_py.model import PAGE_SIZE

HALTED = RunState(Phase.HALTED)
HELD = RunState(Phase.HALTED, no_resume="a debugger has it")
PASSING = RunState(Phase.PASSING, "it is being saved", "it is being saved")
WAITING = RunState(Phase.HALTED, "it waits for a migration", "it waits for a migration")
ASLEEP = RunState(Phase.RUNS, no_resume="it sleeps")


class Moody(FakeDriver):
    """A machine of which others are in charge as well: ``state`` is what it does, ``orders`` what it was told.

    ``failure``: what an order to stop raises, which takes effect ``late`` seconds afterwards, ``None`` for never.
    """

    def __init__(self) -> None:
        super().__init__({0: bytearray(PAGE_SIZE)})
        self.state = RUNS
        self.orders: list[str] = []
        self.failure: BaseException | None = None
        self.late: float | None = 0.0
        self.stops_at = 0.0
        self.gone = False

    def run_state(self) -> RunState:
        if self.gone:
            raise VmGoneError("it was migrated away")
        if self.stops_at and time.monotonic() >= self.stops_at:
            self.state, self.stops_at = STOPPED, 0.0
        return self.state

    def stop(self) -> None:
        self.orders.append("stop")
        if self.failure is None:
            self.state = STOPPED
            return
        if self.late is not None:
            self.stops_at = time.monotonic() + self.late
        raise self.failure

    def run(self, *, whoever: bool) -> None:
        self.orders.append("run whoever" if whoever else "run")
        if whoever or self.run_state() == STOPPED:
            self.state = RUNS


@pytest.fixture
def driver() -> Moody:
    return Moody()


@pytest.fixture
def machine(driver: Moody) -> Microvmi:
    return Microvmi.from_driver(driver)


class Interrupted(Moody):
    """A signal's handler raises while it is asked, or told to run, for the first time after ``armed``."""

    def __init__(self, interrupt: BaseException, where: str) -> None:
        super().__init__()
        self.interrupt: BaseException | None = interrupt
        self.where, self.armed = where, False

    def _come_to(self, where: str) -> None:
        if self.armed and where == self.where and self.interrupt is not None:
            interrupt, self.interrupt = self.interrupt, None
            raise interrupt

    def run_state(self) -> RunState:
        self._come_to("asked")
        return super().run_state()

    def run(self, *, whoever: bool) -> None:
        self._come_to("before it is told")
        super().run(whoever=whoever)
        self._come_to("after it was told")


# ---------------------------------------------------------------------------------------------------- whose stop it is


@pytest.mark.parametrize(
    "state", [HALTED, HELD, WAITING, RUNS, ASLEEP], ids=lambda state: state.no_resume or str(state)
)
def test_a_machine_that_does_not_stand_by_our_stop_is_left_as_it_is(
    driver: Moody, machine: Microvmi, state: RunState
) -> None:
    machine.pause()
    driver.state = state
    machine.close()
    assert driver.orders == ["stop"]


def test_a_machine_that_stands_by_our_stop_runs_after_close(driver: Moody, machine: Microvmi) -> None:
    machine.pause()
    machine.close()
    assert driver.orders == ["stop", "run"]


def test_a_machine_that_went_away_is_closed_without_an_order(driver: Moody, machine: Microvmi) -> None:
    machine.pause()
    driver.gone = True
    for call in (machine.pause, machine.resume):
        with pytest.raises(VmGoneError, match="migrated away"):
            call()
    machine.close()
    assert driver.orders == ["stop"]


def test_a_machine_that_comes_back_is_not_ours_any_more(driver: Moody, machine: Microvmi) -> None:
    machine.pause()
    driver.gone = True
    with pytest.raises(VmGoneError):
        machine.pause()
    driver.gone = False
    machine.close()
    assert driver.orders == ["stop"]


@pytest.mark.parametrize("look", ["pause", "memory_map"])
def test_one_that_was_let_run_and_stopped_by_others_is_theirs(driver: Moody, machine: Microvmi, look: str) -> None:
    machine.pause()
    driver.state = HALTED if look == "pause" else RUNS
    getattr(machine, look)()
    driver.state = STOPPED
    machine.close()
    assert driver.orders == ["stop"]


def test_what_others_are_in_the_middle_of_is_awaited(driver: Moody, machine: Microvmi) -> None:
    machine.pause()
    driver.state, driver.stops_at = PASSING, time.monotonic() + 0.2
    with pytest.raises(DriverUnavailableError, match="being saved"):
        machine.pause()
    machine.close()
    assert driver.run_state() == RUNS


def test_what_does_not_pass_is_told_and_left(driver: Moody, machine: Microvmi) -> None:
    machine.pause()
    driver.state = PASSING
    started = time.monotonic()
    with pytest.raises(TimeoutExpiredError, match="being saved"):
        machine.close()
    assert time.monotonic() - started < 5
    assert driver.orders == ["stop"]


# ------------------------------------------------------------------------------------------------ pausing, resuming


@pytest.mark.parametrize("state", [PASSING, WAITING], ids=["passing", "waiting"])
def test_a_pause_that_would_be_none_is_an_error(driver: Moody, machine: Microvmi, state: RunState) -> None:
    driver.state = state
    with pytest.raises(DriverUnavailableError, match=state.no_pause):
        machine.pause()
    machine.close()
    assert driver.orders == []


@pytest.mark.parametrize("state", [PASSING, WAITING, HELD, ASLEEP], ids=["passing", "waiting", "held", "asleep"])
def test_a_resume_that_would_do_harm_is_an_error(driver: Moody, machine: Microvmi, state: RunState) -> None:
    driver.state = state
    with pytest.raises(DriverUnavailableError, match=state.no_resume):
        machine.resume()
    assert driver.orders == []


@pytest.mark.parametrize("state", [STOPPED, HALTED, RUNS], ids=["stopped", "halted", "runs"])
def test_a_resume_lets_run_whoever_stopped_it(driver: Moody, machine: Microvmi, state: RunState) -> None:
    driver.state = state
    machine.resume()
    machine.close()
    assert driver.orders == ["run whoever"]


@pytest.mark.parametrize("state", [STOPPED, HALTED, HELD], ids=["stopped", "halted", "held"])
def test_pausing_what_stands_already_orders_nothing(driver: Moody, machine: Microvmi, state: RunState) -> None:
    driver.state = state
    machine.pause()
    machine.close()
    assert driver.orders == []


# ------------------------------------------------------------------------------------------------------ late answers


UNKNOWN = [TimeoutExpiredError("no answer"), DriverUnavailableError("it hung up"), ValueError("a defect")]


@pytest.mark.parametrize("failure", UNKNOWN, ids=lambda failure: type(failure).__name__)
@pytest.mark.parametrize("late", [0.0, 0.3])
def test_a_stop_whose_answer_is_late_is_taken_back(
    driver: Moody, machine: Microvmi, failure: Exception, late: float
) -> None:
    driver.failure, driver.late = failure, late
    with pytest.raises(type(failure)):
        machine.pause()
    machine.close()
    assert driver.orders == ["stop", "run"]
    assert driver.state == RUNS


def test_a_stop_that_never_happens_is_given_up_in_time(driver: Moody, machine: Microvmi) -> None:
    driver.failure, driver.late = TimeoutExpiredError("no answer"), None
    with pytest.raises(TimeoutExpiredError):
        machine.pause()
    started = time.monotonic()
    machine.close()
    assert time.monotonic() - started < 5
    assert driver.orders == ["stop"]


def test_a_resume_after_a_late_stop_comes_after_it(driver: Moody, machine: Microvmi) -> None:
    driver.failure, driver.late = TimeoutExpiredError("no answer"), 0.3
    with pytest.raises(TimeoutExpiredError):
        machine.pause()
    machine.resume()
    time.sleep(0.4)
    assert driver.run_state() == RUNS
    machine.close()
    assert driver.orders == ["stop", "run whoever"]


def test_a_pause_after_a_late_stop_is_ours(driver: Moody, machine: Microvmi) -> None:
    driver.failure, driver.late = TimeoutExpiredError("no answer"), 0.0
    with pytest.raises(TimeoutExpiredError):
        machine.pause()
    machine.pause()
    machine.close()
    assert driver.orders == ["stop", "run"]


def test_a_stop_that_was_refused_is_not_in_the_books(driver: Moody, machine: Microvmi) -> None:
    driver.failure, driver.late = IoError("refused"), None
    with pytest.raises(IoError):
        machine.pause()
    driver.state = STOPPED  # by somebody else
    machine.close()
    assert driver.orders == ["stop"]


class Failing(Moody):
    """It does not answer orders to run as often as ``failures`` says."""

    failures = 1

    def run(self, *, whoever: bool) -> None:
        if self.failures:
            self.failures -= 1
            raise TimeoutExpiredError("no answer")
        super().run(whoever=whoever)


def test_a_resume_that_fails_stays_in_the_books_and_keeps_no_page() -> None:
    driver = Failing()
    machine = Microvmi.from_driver(driver)
    machine.pause()
    machine.read_physical(0, 8)
    with pytest.raises(TimeoutExpiredError):
        machine.resume()
    driver.write_frame(0, 0, memoryview(b"changed!"))
    assert machine.read_physical(0, 8) == b"changed!"
    machine.close()
    assert driver.orders == ["stop", "run"]


def test_nothing_is_stopped_by_a_machine_that_is_being_closed(driver: Moody) -> None:
    books = RunBooks(driver, lambda wanted: None)
    books.end()
    with pytest.raises(InvalidContextError):
        books.pause()
    assert driver.orders == []


# -------------------------------------------------------------------------------------------------------- kept pages


@pytest.mark.parametrize("look", ["pause", "memory_map"])
@pytest.mark.parametrize("state", [STOPPED, RUNS], ids=["stopped", "let run"])
def test_pages_are_read_anew_after_a_second_pause_and_after_the_map(
    driver: Moody, machine: Microvmi, look: str, state: RunState
) -> None:
    machine.pause()
    before = machine.read_physical(0, 8)
    driver.write_frame(0, 0, memoryview(b"restored"))  # somebody loads a snapshot, or lets the machine run
    assert machine.read_physical(0, 8) == before
    driver.state = state
    getattr(machine, look)()
    assert machine.read_physical(0, 8) == b"restored"
    machine.close()


def test_pages_of_a_machine_that_others_let_run_are_not_kept_any_more(driver: Moody, machine: Microvmi) -> None:
    machine.pause()
    driver.state = RUNS
    machine.memory_map()
    for word in (b"one word", b"another!"):
        driver.write_frame(0, 0, memoryview(word))
        assert machine.read_physical(0, 8) == word


# -------------------------------------------------------------------------------------------------------------- fork


def test_a_child_lets_nothing_run(driver: Moody, machine: Microvmi) -> None:
    machine.pause()
    child = os.fork()
    if child == 0:
        machine.close()
        os._exit(len(driver.orders))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    machine.close()
    assert driver.orders == ["stop", "run"]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), SystemExit(130)], ids=["Ctrl-C", "a handler"])
@pytest.mark.parametrize("where", ["asked", "before it is told", "after it was told"])
def test_an_interrupt_while_it_is_closed_leaves_no_machine_paused(interrupt: BaseException, where: str) -> None:
    driver = Interrupted(interrupt, where)
    machine = Microvmi.from_driver(driver)
    machine.pause()
    driver.armed = True
    with pytest.raises(type(interrupt)):
        machine.close()
    assert driver.state == RUNS
    assert driver.interrupt is None
