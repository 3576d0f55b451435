# SPDX-License-Identifier: Apache-2.0
"""How the command begins and ends: standard streams that are closed, full or broken, signals, defects."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from command.running import MICROVMI, Done, environment, one_line, piped

FAKE = "vmi://fake/"


def shell(script: str, **more: str) -> Done:
    """Run it by a shell, in which ``microvmi`` is the command."""
    env = {**environment(), **more}
    text = f'microvmi() {{ "{MICROVMI[0]}" -m libmicrovmi_py.command "$@"; }}\n{script}'
    done = subprocess.run(["bash", "-c", text], env=env, capture_output=True, text=True, timeout=60, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("closed", "code"), [("<&-", 0), (">&-", 1), ("2>&-", 0), ("<&- 2>&-", 0), ("<&- >&- 2>&-", 1)]
)
def test_closed_standard_streams_are_no_files_of_ours(closed: str, code: int, tmp_path: Path) -> None:
    done = shell(f"microvmi read {FAKE} 0x1000 16 {closed}")
    assert done.code == code, done
    assert ("01 00" in done.out) == (code == 0)
    assert "Traceback" not in done.err
    dumped = shell(f"microvmi dump {FAKE} {tmp_path}/dump {closed}")
    assert (tmp_path / "dump").stat().st_size == 1 << 20, dumped


def test_standard_output_that_is_full_is_an_error() -> None:
    done = shell(f"microvmi info {FAKE} > /dev/full")
    assert (done.code, one_line(done.err)) == (1, "No space left on device")


def test_a_reader_that_goes_ends_it_quietly() -> None:
    done = shell(f"microvmi read {FAKE} 0 1M --raw | head -c 1 > /dev/null; echo ${{PIPESTATUS[0]}}")
    assert done.out.splitlines()[-1] == str(128 + signal.SIGPIPE)
    assert done.err == ""


def test_what_was_ignored_stays_ignored(tmp_path: Path) -> None:
    command = f"exec {MICROVMI[0]} -m libmicrovmi_py.command pause --for 2 {FAKE} > {tmp_path}/out"
    begun = f"until [ -s {tmp_path}/out ]; do sleep 0.05; done"
    done = shell(f"(trap '' INT HUP; {command}) & {begun}; kill -INT $!; kill -HUP $!; wait $!; echo $?")
    assert done.out.splitlines()[-1] == "0"


def test_text_is_written_in_any_locale() -> None:
    done = piped("info", "vmi://fake/", LC_ALL="C", PYTHONIOENCODING="latin-1:strict")
    assert done.code == 0


def test_a_defect_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "from libmicrovmi_py.drivers.fake import FakeDriver\n\n\n"
        "class Broken(FakeDriver):\n    name = 'broken'\n    automatic = False\n\n"
        "    def memory_map(self):\n        return self._ranges if not self._starts else 1 / 0\n\n\nDRIVER = Broken\n"
    )
    done = piped("map", "vmi://broken/", MICROVMI_PLUGIN_PATH=str(tmp_path))
    assert done.code == 1
    assert one_line(done.err).startswith("a defect: ZeroDivisionError: division by zero")


def test_wrong_usage_says_what_is_meant() -> None:
    assert one_line(piped("lst").err) == "there is no subcommand lst: is list meant? (microvmi --help says more)"
    assert (piped().code, piped("--version").code, piped("--help").code) == (2, 0, 0)
    assert piped("read", FAKE, "0x1000", "4Q").code == 2


def test_nothing_of_a_machine_s_name_reaches_the_terminal_as_it_is() -> None:
    done = piped("info", "no\x1b[31msuch")
    assert (done.code, "\x1b" in done.err) == (1, False)


IN_DEL = """
import os, signal, time
from libmicrovmi_py.command.ending import take_signals

class Gone:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            pass

take_signals()
gone = Gone()
del gone
time.sleep(30)
"""


def test_a_signal_that_comes_while_an_object_goes_is_not_lost() -> None:
    """Python passes over what is raised there."""
    done = subprocess.run([MICROVMI[0], "-c", IN_DEL], env=environment(), capture_output=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, b"")
