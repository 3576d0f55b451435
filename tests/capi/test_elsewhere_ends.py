# SPDX-License-Identifier: Apache-2.0
"""What ends a program, a thread or a call whose calls ``microvmi-caller`` makes, and what is left then."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from capi.test_elsewhere import PLUGINS, Interrupted, called_elsewhere

ADDRESS = b"vmi://fake/?size=0x100000&vcpus=2"
FEW = 24


@pytest.fixture
def far(stubs: ModuleType, library_path: Path) -> Any:
    return called_elsewhere(stubs, library_path)


@pytest.fixture
def vm(far: Any) -> int:
    context: int = far.microvmi_open(ADDRESS, None)
    return context


def test_signals_that_end_a_service_leave_the_caller_to_its_program(
    stubs: ModuleType, library_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MICROVMI_PLUGIN_PATH", str(PLUGINS))
    far, journal = called_elsewhere(stubs, library_path), tmp_path / "journal"
    vm = far.microvmi_open(f"vmi://journal/?path={journal}".encode(), None)
    assert far.microvmi_pause(vm)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        os.kill(far.cdll._process.pid, number)
    time.sleep(0.2)
    assert far.microvmi_resume(vm)
    assert journal.read_text().split()[:2] == ["pause", "resume"]
    far.cdll._end()
    assert far.cdll._process.returncode == 0


def test_after_the_end_of_the_caller_one_line_says_so_and_the_way_out(
    far: Any, vm: int, stubs: ModuleType, library_path: Path
) -> None:
    process = far.cdll._process
    os.kill(process.pid, signal.SIGKILL)
    told: list[str] = []

    def call() -> None:
        with pytest.raises(ConnectionError) as caught:
            far.microvmi_pause(vm)
        told.append(str(caught.value))

    call()
    call()
    other = threading.Thread(target=call)
    other.start()
    other.join()
    end = f"microvmi-caller (process {process.pid}), which makes the calls, was ended by signal 9 (Killed), and its"
    assert told == [f"{end} machines are closed: load() the library again and open them anew"] * 3
    again = called_elsewhere(stubs, library_path)
    assert again.microvmi_pause(again.microvmi_open(ADDRESS, None))


def test_a_caller_that_ended_by_itself_tells_its_code(stubs: ModuleType, library_path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "libmicrovmi" / "libmicrovmi_py"
    folder.mkdir(parents=True)
    program = folder / "microvmi-caller"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    (tmp_path / "some.c").write_text("int microvmi_version(void) { return 0; }\n")
    assert os.system(f"cc -shared -fPIC -o {tmp_path}/some.so {tmp_path}/some.c") == 0
    far = stubs._Elsewhere(ctypes.CDLL(str(tmp_path / "some.so")))
    with pytest.raises(
        ConnectionError, match=r"microvmi-caller \(process \d+\), .* ended with code 3, and its machines"
    ):
        far.microvmi_version()


def test_a_function_that_the_library_lacks_is_told_as_by_ctypes(
    far: Any, stubs: ModuleType, library_path: Path
) -> None:
    told = []
    for handle in (ctypes.CDLL(str(library_path)), far.cdll):
        with pytest.raises(AttributeError) as caught:
            handle.microvmi_of_later  # noqa: B018
        told.append(str(caught.value))
    assert told[0] == told[1]
    with pytest.raises(ConnectionError, match="has given up this thread"):
        far.cdll.call("microvmi_of_later", [], stubs._Pieces(), False)
    assert far.microvmi_version()


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """A signal's handler raises ``Interrupted`` here."""

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        with pytest.raises(Interrupted):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def code(stubs: Any) -> Any:
    size = ctypes.sizeof(stubs.microvmi_intercept)
    return stubs.microvmi_intercept(struct_size=size, kind=stubs.MICROVMI_EVENT_BREAKPOINT, address=0x7C50)


@pytest.fixture
def event(stubs: Any) -> Any:
    return stubs.microvmi_event(struct_size=ctypes.sizeof(stubs.microvmi_event))


def test_a_listen_that_was_interrupted_takes_no_event_from_the_next(far: Any, vm: int, code: Any, event: Any) -> None:
    with interrupted_after(0.2):
        far.microvmi_listen(vm, 60000, event)
    time.sleep(0.5)
    assert far.microvmi_toggle_intercept(vm, 0, code, True)
    assert far.microvmi_listen(vm, 10000, event)
    assert far.microvmi_reply_event(vm, event, None)


def test_a_step_is_told_once_and_not_to_who_has_given_up(far: Any, stubs: Any, event: Any) -> None:
    """No guest can do a step again."""
    step = stubs.microvmi_intercept(struct_size=ctypes.sizeof(stubs.microvmi_intercept))
    step.kind, told = stubs.MICROVMI_EVENT_SINGLE_STEP, []
    for given_up in (False, True):
        vm = far.microvmi_open(b"vmi://fake/?size=0x100000", None)
        if given_up:
            with interrupted_after(0.2):
                far.microvmi_listen(vm, 60000, event)
            time.sleep(0.5)
        assert far.microvmi_toggle_intercept(vm, 0, step, True)
        assert far.microvmi_listen(vm, 10000, event)
        told.append(event.instruction_pointer)
        far.microvmi_destroy(vm)
    assert told[0] == told[1]


def test_an_event_on_the_way_to_who_is_gone_is_told_the_next(
    far: Any, vm: int, stubs: Any, code: Any, event: Any
) -> None:
    assert far.microvmi_toggle_intercept(vm, 0, code, True)
    connection, pieces = stubs._Connection(far.cdll._ours), stubs._Pieces()
    pieces.add_value(2, stubs.microvmi_event, ctypes.pointer(event), 1)
    far.cdll._ask(connection.socket, "microvmi_listen", [vm, 10000, 0], pieces, False)
    assert connection.socket.recv(8)[0] == 1
    assert not far.microvmi_listen(vm, 500, event), "the vCPU stands"
    connection.socket.close()
    assert far.microvmi_listen(vm, 10000, event)
    assert event.instruction_pointer == 0x7C50


def test_a_listen_lasts_as_long_as_was_said(far: Any, vm: int, stubs: Any, event: Any) -> None:
    start = time.monotonic()
    assert not far.microvmi_listen(vm, 350, event)
    assert 0.35 <= time.monotonic() - start < 10
    assert far.microvmi_last_error_code() == stubs.MICROVMI_ERROR_TIMEOUT
    assert far.microvmi_last_error() == b"no event came in time"
    assert not far.microvmi_listen(None, 60000, event)
    assert far.microvmi_last_error_code() == stubs.MICROVMI_ERROR_INVALID_CONTEXT


def test_one_thread_too_many_fails_alone(far: Any, vm: int) -> None:
    resource.prlimit(far.cdll._process.pid, resource.RLIMIT_NOFILE, (FEW, FEW))
    over, told = threading.Event(), []

    def call() -> None:
        try:
            told.append(str(far.microvmi_version()))
        except ConnectionError as err:
            told.append(str(err))
        over.wait()

    threads = [threading.Thread(target=call) for _ in range(FEW + 4)]
    for thread in threads:
        thread.start()
    try:
        while len(told) < len(threads):
            time.sleep(0.05)
        failed = [text for text in told if "ulimit -n" in text]
        assert 4 < len(failed) < len(threads)
        assert far.microvmi_pause(vm)
    finally:
        over.set()


def test_the_caller_may_open_as_much_as_the_system_allows(stubs: ModuleType, library_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        far = called_elsewhere(stubs, library_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert far.microvmi_version()
    assert resource.prlimit(far.cdll._process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
