# SPDX-License-Identifier: Apache-2.0
"""Errors and log lines: each is one line that is safe to print, whatever names and answers of others it tells."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from libmicrovmi_py import Microvmi, errors
from libmicrovmi_py.errors import AccessError, MicrovmiError, NoDriverError, logger

HOSTILE = "a\nb\r\x1b[2J\x00\x7f\x9b\u2028\u202e\udcff"
HARMLESS = r"a\nb\r\x1b[2J\x00\x7f\x9b\u2028\u202e\udcff"

CLASSES = [
    found
    for found in vars(errors).values()
    if isinstance(found, type) and issubclass(found, MicrovmiError) and found is not AccessError
]


@pytest.mark.parametrize("kind", CLASSES)
def test_the_text_of_every_error_is_one_safe_line(kind: type[MicrovmiError]) -> None:
    assert str(kind(HOSTILE)) == HARMLESS
    assert str(kind("naïve, 漢字 \\ \"'")) == "naïve, 漢字 \\ \"'"


def test_a_text_beyond_all_sense_is_cut() -> None:
    assert len(str(MicrovmiError("x" * 10_000_000))) < 20_000


def test_reasons_of_drivers_are_a_line_each() -> None:
    assert str(NoDriverError("none", f"one: {HOSTILE}", "two: b")).split("\n") == ["none", f"one: {HARMLESS}", "two: b"]


def test_log_lines_are_safe_for_every_handler_of_a_host(caplog: pytest.LogCaptureFixture) -> None:
    errors.logger("libmicrovmi_py.tests").warning("%s of %d%%", HOSTILE, 3)
    assert [record.getMessage() for record in caplog.records] == [f"{HARMLESS} of 3%"]


def test_every_module_logs_through_the_one_place() -> None:
    package = Path(errors.__file__).parent
    direct = [path.name for path in package.rglob("*.py") if "= logging.getLogger(__name__)" in path.read_text()]
    assert direct == []


def test_a_machine_with_a_hostile_name_cannot_forge_lines(
    start_machine: Callable[..., str], lib: Any, stubs: ModuleType, library_path: Path
) -> None:
    start_machine("-name", "evil\n[2026-01-01T00:00:00Z INFO  microvmi] opened\x1b[2J")
    with pytest.raises(MicrovmiError) as caught:
        Microvmi.open("vmi://qemu/?vm_name=nobody-has-this-name")
    assert str(caught.value).isprintable()
    assert lib.microvmi_open(b"vmi://qemu/?vm_name=nobody-has-this-name", None) is None
    assert lib.microvmi_last_error().decode().isprintable()
    lines = logged(library_path, stubs, "lib.microvmi_open(b'vmi:///?vm_name=nobody-has-this-name', None)")
    assert all(line.startswith("[") and "opened\x1b" not in line for line in lines)
    assert not any(line.startswith("[2026-01-01T00:00:00Z") for line in lines)


def logged(library_path: Path, stubs: ModuleType, call: str) -> list[str]:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(stubs.__file__ or '').parent)!r})\n"
        f"import {stubs.__name__} as s; lib = s.load({str(library_path)!r})\nlib.microvmi_envlogger_init()\n{call}"
    )
    environment = {"RUST_LOG": "debug"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr
    return done.stderr.splitlines()


def test_a_logging_module_that_another_thread_is_importing_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    half = ModuleType("logging")
    half.__spec__ = ModuleSpec("logging", None)
    half.__spec__._initializing = True  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "logging", half)
    logger("libmicrovmi_py.somewhere").warning("a line for nobody")
