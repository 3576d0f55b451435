# SPDX-License-Identifier: Apache-2.0
"""The generated ctypes module in a Python that the library was not built for: ``microvmi-caller`` makes the calls.

Most tests have that program called from this Python, which needs none: what it does is the same.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from startup.test_python_hosts import pythons

from libmicrovmi_py.stubgen import generate

ROOT = Path(__file__).resolve().parents[2]
LOOK = ROOT / "c_tests" / "languages" / "look.py"
PLUGINS = ROOT / "tests" / "plugins"
NUMBERS = (
    *(ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint16, ctypes.c_size_t, ctypes.c_int64, ctypes.c_int),
    ctypes.c_bool,
)


def called_elsewhere(stubs: Any, path: Path) -> Any:
    """The library as a Python of another version has it."""
    lib = stubs.load(path)
    lib.cdll = stubs._Elsewhere(lib.cdll)
    for name, (result, arguments) in stubs._PROTOTYPES.items():
        function = getattr(lib.cdll, name)
        function.restype, function.argtypes = result, arguments
    return lib


@pytest.fixture(scope="module")
def far(stubs: ModuleType, library_path: Path) -> Any:
    """One for all tests here."""
    return called_elsewhere(stubs, library_path)


@pytest.fixture
def vm(far: Any) -> Any:
    context = far.microvmi_open(b"vmi://fake/?size=0x100000&vcpus=2", None)
    assert context
    yield context
    far.microvmi_destroy(context)


def test_texts_come_over_and_are_freed_on_both_sides(far: Any) -> None:
    error = ctypes.POINTER(ctypes.c_char)()
    assert far.microvmi_open(b"nowhere://", ctypes.byref(error)) is None
    text = ctypes.string_at(error)
    assert text.startswith(b"nowhere://: ")
    assert far.microvmi_last_error() == text
    assert len(far.cdll._texts) == 1
    far.rs_cstring_free(error)
    assert far.cdll._texts == {}
    assert far.microvmi_version().count(b".") == 2
    assert far.microvmi_get_driver_name(None) is None


def test_memory_comes_over_in_arguments_and_behind_pointers(far: Any, stubs: Any, vm: int) -> None:
    page, count = (ctypes.c_uint8 * 4096)(), ctypes.c_uint64()
    assert far.microvmi_read_physical(vm, 0x5000, page, len(page), ctypes.byref(count)) is True
    assert (bytes(page[:9]), count.value) == (b"\5\0\0\0\0\0\0\0\5", 4096)
    assert far.microvmi_read_physical(vm, 0xFFFF8, page, len(page), count) is False
    assert (far.microvmi_last_error_code(), count.value) == (stubs.MICROVMI_ERROR_NOT_MAPPED, 8)
    buffers = [(ctypes.c_uint8 * 8)() for _ in range(3)]
    requests = (stubs.microvmi_read_request * 3)()
    for number, (request, buffer) in enumerate(zip(requests, buffers, strict=True)):
        request.physical_address, request.size = number << 12, 8
        request.buffer = ctypes.cast(buffer, ctypes.POINTER(ctypes.c_uint8))
    assert far.microvmi_read_physical_batch(vm, requests, 3)
    assert [buffer[0] for buffer in buffers] == [0, 1, 2]
    assert [ctypes.addressof(request.buffer.contents) for request in requests] == list(map(ctypes.addressof, buffers))
    assert [request.bytes_read for request in requests] == [8, 8, 8]


def test_parameters_with_texts_in_them_come_over(far: Any, stubs: Any) -> None:
    params = stubs.DriverInitParamsFFI()
    params.memflow.connector_name = b"no-such"
    arguments = (ctypes.c_char_p * 2)(b"a=1", b"not-a-pair")
    held = params.memflow.connector_args.default_
    held.args_arr, held.args_arr_len = ctypes.cast(arguments, ctypes.POINTER(ctypes.c_char_p)), 2
    near = stubs.load(far_path(far))
    told = []
    for lib in (far, near):
        assert lib.microvmi_init(ctypes.c_uint(stubs.Memflow), params, None) is None
        told.append((lib.microvmi_last_error_code(), lib.microvmi_last_error()))
    assert told[0] == told[1]
    assert (params.memflow.connector_name, arguments[1]) == (b"no-such", b"not-a-pair")


def far_path(far: Any) -> str:
    """The library that the other process has loaded."""
    return str(far.cdll._process.args[1])


def test_events_are_answered_with_registers(far: Any, stubs: Any, vm: int) -> None:
    code = stubs.microvmi_intercept(struct_size=ctypes.sizeof(stubs.microvmi_intercept))
    code.kind, code.address = stubs.MICROVMI_EVENT_BREAKPOINT, 0x7C50
    event = stubs.microvmi_event(struct_size=ctypes.sizeof(stubs.microvmi_event))
    assert far.microvmi_toggle_intercept(vm, stubs.MICROVMI_ALL_VCPUS, code, True)
    assert far.microvmi_listen(vm, 10000, event)
    assert event.instruction_pointer == 0x7C50
    registers = stubs.Registers()
    assert far.microvmi_read_registers(vm, event.vcpu, registers)
    registers.x86.rbx = 0x1234567890ABCDEF
    reply = stubs.microvmi_reply(struct_size=ctypes.sizeof(stubs.microvmi_reply), registers=ctypes.pointer(registers))
    assert far.microvmi_reply_event(vm, event, reply)
    assert far.microvmi_read_registers(vm, event.vcpu, registers)
    assert registers.x86.rbx == 0x1234567890ABCDEF


def test_errors_belong_to_threads(far: Any) -> None:
    told = []

    def fail() -> None:
        far.microvmi_pause(None)
        told.append(far.microvmi_last_error())

    assert far.microvmi_version()
    far.microvmi_open(b"nowhere://", None)
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    assert told[0].startswith(b"the context is NULL")
    assert far.microvmi_last_error().startswith(b"nowhere://")


def test_what_only_one_process_can_have_is_refused(far: Any, stubs: Any, vm: int) -> None:
    with pytest.raises(NotImplementedError, match="read it"):
        far.microvmi_map_physical(vm, 0, 4096, ctypes.byref(ctypes.POINTER(ctypes.c_uint8)()))
    options = stubs.microvmi_snapshot_options(struct_size=ctypes.sizeof(stubs.microvmi_snapshot_options))
    options.progress = type(options.progress)(lambda *_: True)
    with pytest.raises(NotImplementedError, match="leave it out"):
        far.microvmi_snapshot(vm, options, None)


@pytest.fixture
def log_as_before() -> Iterator[None]:
    """What ``microvmi_envlogger_init()`` did to the lines of this process is undone for the tests that follow."""
    package = logging.getLogger("libmicrovmi_py")
    level, propagate, handlers = package.level, package.propagate, list(package.handlers)
    yield
    package.setLevel(level)
    package.propagate = propagate
    package.handlers[:] = handlers


@pytest.mark.usefixtures("log_as_before")
def test_every_function_of_the_header_answers_as_it_does_here(far: Any, stubs: Any, library_path: Path) -> None:
    near = stubs.load(library_path)
    for name, (result, arguments) in stubs._PROTOTYPES.items():
        values = [0 if kind in NUMBERS else None for kind in arguments]
        told = [getattr(lib.cdll, name)(*values) for lib in (far, near)]
        assert told[0] == told[1] or result is ctypes.c_void_p, name
        assert far.microvmi_last_error() == near.microvmi_last_error(), name


class Interrupted(Exception):
    """What a signal's handler raises."""


def test_a_call_that_was_interrupted_leaves_nothing_for_the_next(far: Any, stubs: Any, vm: int) -> None:
    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    event = stubs.microvmi_event(struct_size=ctypes.sizeof(stubs.microvmi_event))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Interrupted):
            far.microvmi_listen(vm, 60000, event)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    page = (ctypes.c_uint8 * 8)()
    assert far.microvmi_read_physical(vm, 0x3000, page, 8, None)
    assert page[0] == 3


@pytest.mark.parametrize(
    ("ours", "foreign"),
    [
        ("3.13.5 (main, Jun 25 2025, 18:55:22) [GCC 14.2.0]", False),
        ("3.13.0rc2 (main, Sep  9 2024, 18:55:22) [GCC 14.2.0]", False),
        ("3.13.5 free-threading build (main, Jun 25 2025, 18:55:22) [GCC 14.2.0]", True),
        ("3.1.3 (main, Jun 25 2025, 18:55:22) [GCC 14.2.0]", True),
        ("3.14.0 (main, Oct  7 2025, 18:55:22) [GCC 14.2.0]", True),
    ],
)
def test_a_python_of_another_version_or_without_a_gil_has_calls_made(stubs: Any, ours: str, foreign: bool) -> None:
    class Library:
        @staticmethod
        def microvmi_build_info() -> bytes:
            return b"libmicrovmi 0.5.0, Python 3.13.2, cffi 2.0.0, compiler 14.2.0"

    assert stubs._is_foreign(Library, ours) == foreign


PAUSED = """
import os, sys
sys.path.insert(0, sys.argv[3])
from capi.test_elsewhere import called_elsewhere
import microvmi_ctypes as stubs
lib = called_elsewhere(stubs, sys.argv[1])
vm = lib.microvmi_open(sys.argv[2].encode(), None)
assert vm and lib.microvmi_pause(vm), lib.microvmi_last_error()
if os.fork() == 0:
    try:
        lib.microvmi_resume(vm)
    except OSError as err:
        os._exit("fork" not in str(err))
    os._exit(2)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
os.kill(os.getpid(), 9)
"""


def test_a_program_that_is_killed_leaves_no_machine_paused(library_path: Path, tmp_path: Path) -> None:
    (tmp_path / "microvmi_ctypes.py").write_text(generate(ROOT / "include" / "libmicrovmi.h"))
    journal = tmp_path / "journal"
    command = [sys.executable, "-c", PAUSED, str(library_path), f"vmi://journal/?path={journal}", str(ROOT / "tests")]
    env = {**os.environ, "MICROVMI_PLUGIN_PATH": str(PLUGINS), "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    end = time.monotonic() + 60
    while journal.read_text().split()[:2] != ["pause", "resume"]:
        assert time.monotonic() < end, journal.read_text()
        time.sleep(0.05)


NEW_ENOUGH = [kind for kind in sorted(pythons()) if int(kind.split()[0].split(".")[1]) >= 10]


@pytest.mark.parametrize("kind", NEW_ENOUGH)
def test_the_program_of_the_page_runs_in_every_python(library_path: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / "microvmi_ctypes.py").write_text(generate(ROOT / "include" / "libmicrovmi.h"))
    command = [pythons()[kind], str(LOOK), "vmi://fake/", "0x1000", "0x2000", "0x7c50"]
    env = {"PYTHONPATH": str(tmp_path), "LD_LIBRARY_PATH": str(library_path.parent)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "01 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00\n\2\nrip 0xfff0\nbreakpoint 0x7c50\n"
