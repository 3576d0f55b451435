# SPDX-License-Identifier: Apache-2.0
"""Logging: nothing without microvmi_envlogger_init(), and what RUST_LOG lets through after it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

OPENED = re.compile(
    r"^\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ INFO  microvmi::drivers::registry\] opened with driver fake, 0x100000 bytes$"
)


def stderr_of(library_path: Path, stubs: ModuleType, rust_log: str | None, calls: str) -> list[str]:
    code = (
        f"import sys, os; sys.path.insert(0, {str(Path(stubs.__file__ or '').parent)!r})\n"
        f"import {stubs.__name__} as s; lib = s.load({str(library_path)!r})\n{calls}"
    )
    environment = {} if rust_log is None else {"RUST_LOG": rust_log}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    return done.stderr.splitlines()


OPEN = "lib.microvmi_open(b'vmi://fake/', None)\n"
FAIL = "assert lib.microvmi_open(b'vmi:///?vm_name=none', None) is None\n"
INIT = "lib.microvmi_envlogger_init()\n"


def test_nothing_is_logged_unless_asked_for(library_path: Path, stubs: ModuleType) -> None:
    assert stderr_of(library_path, stubs, "trace", OPEN + FAIL) == []


@pytest.mark.parametrize(
    "rust_log",
    [
        "info",
        "INFO",
        "debug",
        "microvmi=info",
        "microvmi",
        "off,microvmi::drivers=info",
        "warn,libmicrovmi_py=trace",
        "hyper=off,info",
    ],
)
@pytest.mark.parametrize("calls", [INIT + OPEN, INIT + INIT + OPEN, OPEN + INIT + OPEN], ids=["first", "twice", "late"])
def test_a_filter_that_lets_information_through(
    library_path: Path, stubs: ModuleType, rust_log: str, calls: str
) -> None:
    lines = stderr_of(library_path, stubs, rust_log, calls)
    assert len(lines) == 1
    assert OPENED.match(lines[0]), lines


@pytest.mark.parametrize(
    "rust_log",
    [None, "", "error", "warn", "off", "nonsense", "microvmi=off", "hyper=trace", "info,microvmi::drivers=error"],
)
def test_a_filter_that_does_not(library_path: Path, stubs: ModuleType, rust_log: str | None) -> None:
    assert stderr_of(library_path, stubs, rust_log, INIT + OPEN) == []


def test_a_failing_driver_is_a_debug_line(library_path: Path, stubs: ModuleType) -> None:
    lines = stderr_of(library_path, stubs, "debug", INIT + FAIL)
    assert any("DEBUG microvmi::drivers::registry] driver qemu: " in line for line in lines)


def test_a_closed_standard_error_is_no_error(library_path: Path, stubs: ModuleType) -> None:
    assert stderr_of(library_path, stubs, "trace", "os.close(2)\n" + INIT + OPEN) == []


def test_a_second_call_reads_the_filter_anew(library_path: Path, stubs: ModuleType) -> None:
    calls = INIT + OPEN + "os.environ['RUST_LOG'] = 'off'\n" + INIT + OPEN
    assert len(stderr_of(library_path, stubs, "info", calls)) == 1
