# SPDX-License-Identifier: Apache-2.0
"""Libraries that are loaded when a machine is opened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from libmicrovmi_py.errors import DriverUnavailableError
from libmicrovmi_py.transport.foreign import load

ROOT = Path(__file__).resolve().parents[2]


def test_the_first_library_that_is_there_is_taken() -> None:
    foreign = load(("libno-such-thing.so.1", "libc.so.6"), "int getpid(void);")
    assert foreign.lib.getpid() > 0
    assert load(("libno-such-thing.so.1", "libc.so.6"), "int getpid(void);") is foreign


def test_one_that_is_not_there_is_named_with_the_reason_once() -> None:
    with pytest.raises(DriverUnavailableError) as caught:
        load(("libno-such-thing.so.1",), "int f(void);")
    text = str(caught.value)
    assert text.startswith("cannot load libno-such-thing.so.1: ")
    assert "No such file or directory; install it" in text
    assert text.count("no-such-thing") == 2
    assert "\n" not in text


def test_a_name_that_is_no_text_is_one_that_is_not_there() -> None:
    with pytest.raises(DriverUnavailableError, match="cannot load"):
        load(("/no\udc80where/lib.so",), "int f(void);")


def test_loading_imports_nothing_that_takes_signals() -> None:
    """In a Python that has not imported ``signal`` yet, as an embedded one."""
    paths = [path for path in sys.path if path] + [str(ROOT)]
    code = (
        f"import sys; sys.path[:] = {paths!r}\n"
        "assert 'signal' not in sys.modules\n"
        "from libmicrovmi_py.transport.foreign import load\n"
        "load(('libc.so.6',), 'int getpid(void);').lib.getpid()\n"
        "assert not {'signal', 'subprocess'} & set(sys.modules), 'imported'\n"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
