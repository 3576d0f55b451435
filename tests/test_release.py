# SPDX-License-Identifier: Apache-2.0
"""Undoing everything: each machine by itself, all within one limit, at the end of the process and when asked for."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from libmicrovmi_py import EventKind, Intercept, InvalidArgumentError, Microvmi, PageAccess, release_all
from libmicrovmi_py.drivers.fake import FakeDriver
from libmicrovmi_py.errors import DriverUnavailableError, IoError, MicrovmiError, TimeoutExpiredError
from libmicrovmi_py.model import PAGE_SIZE
from libmicrovmi_py.transport.deadline import Deadline

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = ROOT / "tests" / "plugins"
CR3 = Intercept(EventKind.CR, number=3)


class Ill(FakeDriver):
    """Its machine runs again when ``trouble`` is over: an exception that it raises, or a call that does not answer."""

    def __init__(self, trouble: BaseException | None = None) -> None:
        super().__init__({0: bytearray(PAGE_SIZE)})
        self.trouble = trouble
        self.hangs = False
        self.was_left = False

    def run(self, *, whoever: bool) -> None:
        if self.trouble is not None:
            raise self.trouble
        if self.hangs:
            limit = Deadline(20)
            while self.hangs and not limit.expired:
                time.sleep(0.01)
            if self.hangs:
                raise TimeoutExpiredError(f"no answer within {limit.seconds:.1f} s")
        super().run(whoever=whoever)

    def run_later(self) -> None:
        self.was_left = True


@pytest.fixture
def paused() -> Any:
    """Makes paused machines of drivers; they are closed with the test."""
    machines: list[tuple[Microvmi, Ill]] = []

    def paused(*drivers: Ill) -> None:
        for driver in drivers:
            machine = Microvmi.from_driver(driver)
            machine.pause()
            machines.append((machine, driver))

    yield paused
    for machine, driver in machines:
        driver.trouble, driver.hangs = None, False
        machine.close()


ODD = [ValueError("a defect"), KeyError("x"), KeyboardInterrupt(), SystemExit(3), IoError("refused"), RecursionError()]


@pytest.mark.parametrize("trouble", ODD, ids=lambda trouble: type(trouble).__name__)
def test_one_odd_machine_keeps_nobody_from_the_others(
    paused: Any, trouble: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    drivers = Ill(), Ill(trouble), Ill()
    paused(*drivers)
    with caplog.at_level(logging.ERROR), pytest.raises(MicrovmiError, match=str(trouble) or type(trouble).__name__):
        release_all(5)
    assert [driver.running for driver in drivers] == [True, False, True]
    assert "not undone" in caplog.text


def test_machines_that_hang_do_not_add_up(paused: Any) -> None:
    drivers = [Ill() for _ in range(12)]
    for driver in drivers[:-1]:
        driver.hangs = True
    paused(*drivers)
    started = time.monotonic()
    with pytest.raises(TimeoutExpiredError) as caught:
        release_all(2)
    assert time.monotonic() - started < 3
    assert [driver.running for driver in drivers] == [False] * 11 + [True]
    assert str(caught.value).count("; ") == 8
    assert str(caught.value).endswith("; and 3 more")
    assert [driver.was_left for driver in drivers] == [True] * 11 + [False]


def test_one_that_answers_late_is_settled_all_the_same(paused: Any) -> None:
    slow, quick = Ill(), Ill()
    slow.hangs = True
    paused(slow, quick)
    timer = threading.Timer(1.2, setattr, (slow, "hangs", False))
    timer.start()
    release_all(5)
    timer.join()
    assert [slow.running, quick.running] == [True, True]


def test_what_is_done_afterwards_is_undone_as_ever(paused: Any) -> None:
    driver = Ill()
    with Microvmi.from_driver(driver) as machine:
        machine.pause()
        release_all(5)
        assert driver.running
        machine.pause()
        assert not driver.running
        release_all(5)
        assert driver.running
        release_all(0)
        machine.pause()
    assert driver.running


def test_intercepts_and_page_accesses_are_undone_whatever_becomes_of_a_pause() -> None:
    driver = Ill(ValueError("a defect"))
    machine = Microvmi.from_driver(driver)
    machine.toggle_intercept(CR3)
    machine.set_page_access(0, PageAccess.READ)
    event = machine.listen(5)
    assert event is not None
    machine.pause()
    with pytest.raises(MicrovmiError, match="a defect"):
        release_all(5)
    assert driver.get_page_access(0) is PageAccess.ALL
    with pytest.raises(InvalidArgumentError, match="not open"):
        machine.reply_event(event)
    driver.trouble = None
    machine.close()
    assert driver.running


class Orderly(Ill):
    """It notes what is undone."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []

    def end_events(self) -> bool:
        self.done.append("events")
        return super().end_events()

    def run(self, *, whoever: bool) -> None:
        super().run(whoever=whoever)
        self.done.append("run")


def test_intercepts_are_given_back_before_the_machine_runs() -> None:
    driver = Orderly()
    with Microvmi.from_driver(driver) as machine:
        machine.toggle_intercept(CR3)
        machine.pause()
    assert driver.done == ["events", "run"]


class Clinging(FakeDriver):
    """It cannot give back what it intercepts."""

    def end_events(self) -> bool:
        raise DriverUnavailableError("not now")


@pytest.mark.parametrize("how", ["close", "release"])
def test_a_machine_runs_on_though_its_intercepts_cannot_be_given_back(how: str) -> None:
    driver = Clinging({0: bytearray(PAGE_SIZE)})
    machine = Microvmi.from_driver(driver)
    machine.toggle_intercept(CR3)
    machine.pause()
    with pytest.raises(DriverUnavailableError, match="not now"):
        machine.close() if how == "close" else release_all(0.2)
    assert driver.running
    with contextlib.suppress(DriverUnavailableError):
        machine.close()


def test_a_negative_time_is_an_error() -> None:
    with pytest.raises(InvalidArgumentError, match="-1"):
        release_all(-1)


# --------------------------------------------------------------------------------------------- the end of the process


PROGRAM = """
import sys, time, os
sys.path[:0] = [{root!r}, {tests!r}]
import logging
logging.basicConfig(format="%(message)s")
from libmicrovmi_py import *
from libmicrovmi_py.errors import *
from libmicrovmi_py.drivers.fake import FakeDriver
from test_release import Clinging, Ill

class Loud(Ill):
    def run(self, *, whoever):
        super().run(whoever=whoever)
        print("runs", flush=True)

def opened(driver):
    machine = Microvmi.from_driver(driver)
    machine.pause()
    return machine

def loud(trouble=None, hangs=False):
    driver = Loud(trouble)
    driver.hangs = hangs
    return opened(driver)
{body}
"""


def end_of(body: str, python: str = sys.executable) -> tuple[str, str, float]:
    """What a Python program prints that ends after ``body``, to both outputs, and the seconds it took."""
    code = PROGRAM.format(root=str(ROOT), tests=str(ROOT / "tests"), body=body)
    started = time.monotonic()
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    return done.stdout, done.stderr, time.monotonic() - started


def test_the_end_settles_each_machine_and_tells_what_failed() -> None:
    out, err, _ = end_of("machines = loud(), loud(ValueError('a defect')), loud(KeyboardInterrupt()), loud()")
    assert out == "runs\n" * 2
    assert "not undone: ValueError: a defect" in err
    assert "not undone: KeyboardInterrupt" in err


def test_the_end_of_hung_machines_has_one_limit() -> None:
    out, err, seconds = end_of("machines = [loud(hangs=True) for _ in range(3)] + [loud()]")
    assert out == "runs\n"
    assert err.count("not undone: no answer") == 3
    assert seconds < 14


LATE = """
class Late(Loud):
    stops_at = 0.0
    def stop(self):
        self.stops_at = time.monotonic() + 0.3
        raise TimeoutExpiredError("no answer")
    def run_state(self):
        if self.stops_at and time.monotonic() > self.stops_at:
            self.running, self.stops_at = False, 0.0
        return super().run_state()

machine = Microvmi.from_driver(Late())
try:
    machine.pause()
except TimeoutExpiredError:
    print("late")
del machine
"""


def test_the_end_takes_back_a_stop_whose_answer_is_late() -> None:
    assert end_of(LATE)[0] == "late\nruns\n"


FORKED = """
class Armed(Ill):
    def end_events(self):
        print("released", flush=True)
        return super().end_events()

machine = Microvmi.from_driver(Armed())
machine.toggle_intercept(Intercept(EventKind.CR, number=3))
if os.fork() == 0:
    sys.exit()
os.wait()
print("child ended", flush=True)
"""


def test_a_forked_child_releases_nothing_of_its_parents() -> None:
    assert end_of(FORKED)[0] == "child ended\nreleased\n"


# ----------------------------------------------------------------------------------------------------------------- C


def c_program(body: str, library: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python statements in a process that reaches the library by ctypes, as ``lib``."""
    code = f"import ctypes, os, sys\nlib = ctypes.CDLL({str(library)!r})\nlib.microvmi_open.restype = ctypes.c_void_p\n"
    code += "lib.microvmi_last_error.restype = ctypes.c_char_p\nlib.microvmi_release_all.restype = ctypes.c_bool\n"
    code += "def opened(uri):\n    return ctypes.c_void_p(lib.microvmi_open(uri.encode(), None))\n"
    return subprocess.run(
        [sys.executable, "-c", code + body],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "MICROVMI_PLUGIN_PATH": str(PLUGINS), **environment},
    )


def test_c_releases_every_context(library_path: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    body = f"for path in {str(first)!r}, {str(second)!r}:\n"
    body += "    assert lib.microvmi_pause(opened('vmi://journal/?path=' + path))\n"
    body += "assert lib.microvmi_release_all(5000), lib.microvmi_last_error()\nos._exit(0)\n"
    done = c_program(body, library_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.read_text().split() for path in (first, second)] == [["pause", "resume"]] * 2


def test_c_is_told_what_could_not_be_undone(library_path: Path, tmp_path: Path) -> None:
    body = f"vm = opened('vmi://journal/?path={tmp_path}/journal')\nassert lib.microvmi_pause(vm)\n"
    body += f"os.remove({str(tmp_path / 'journal')!r}); os.mkdir({str(tmp_path / 'journal')!r})\n"
    body += "assert not lib.microvmi_release_all(1000)\n"
    body += "print(lib.microvmi_last_error_code(), lib.microvmi_last_error().decode(), flush=True)\nos._exit(0)\n"
    done = c_program(body, library_path)
    assert done.stdout.startswith("14 IsADirectoryError: "), done.stderr


def test_c_needs_no_context_and_starts_no_python(library_path: Path) -> None:
    body = "assert lib.microvmi_release_all(0) and lib.microvmi_last_error_code() == 0\n"
    body += "assert not [line for line in open('/proc/self/maps') if '_cffi_backend' in line]\n"
    assert c_program(body, library_path).stderr == ""


def test_c_refuses_in_a_forked_child(library_path: Path, tmp_path: Path) -> None:
    body = f"vm = opened('vmi://journal/?path={tmp_path}/journal')\nassert lib.microvmi_pause(vm)\n"
    body += "if os.fork() == 0:\n    os._exit(lib.microvmi_release_all(1000) * 100 + lib.microvmi_last_error_code())\n"
    body += "print(os.waitstatus_to_exitcode(os.wait()[1]), open(f'{tmp_path}/journal').read().split())".replace(
        "{tmp_path}", str(tmp_path)
    )
    assert c_program(body, library_path).stdout == "12 ['pause']\n"
