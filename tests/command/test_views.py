# SPDX-License-Identifier: Apache-2.0
"""What a tool reads, how that is told, and how far long work is."""

from __future__ import annotations

import argparse
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from command.running import ROOT, at_terminal, interrupted, piped

from libmicrovmi_py.command import kit

MIB = 1 << 20


@pytest.fixture
def lines(tmp_path: Path) -> Callable[[], list[str]]:
    """What was done to the machine of the journal."""
    return lambda: (tmp_path / "journal").read_text().split()


@pytest.fixture
def machine(tmp_path: Path) -> str:
    """One that writes down what is done to it."""
    return f"vmi://watched/?path={tmp_path / 'journal'}"


DUMP = Path("/dev/null")


@pytest.mark.parametrize(
    ("words", "done", "said"),
    [
        ([], ["stop", "run", "close"], r"a snapshot is read: the machine stood still \d+\.\d ms, [0-9.]+ \w*B of data"),
        (["--snapshot"], ["stop", "run", "close"], "a snapshot is read: "),
        (["--pause"], ["stop", "run", "close"], "the machine is paused while it is read"),
        (["--live"], ["close"], ""),
    ],
)
def test_it_is_as_the_option_says(
    words: list[str], done: list[str], said: str, machine: str, lines: Callable[[], list[str]]
) -> None:
    ended = piped("dump", machine, DUMP, *words)
    assert (ended.code, lines()) == (0, done)
    assert re.match(f"microvmi: {said}" if said else "$", ended.err)


def test_a_large_machine_that_its_hypervisor_cannot_copy_in_the_background_is_not_stopped_unasked(
    tmp_path: Path, lines: Callable[[], list[str]]
) -> None:
    large = f"vmi://journal/?path={tmp_path / 'journal'}&size={640 * MIB:#x}"
    said = "the machine is read as it runs, as no snapshot is taken: "
    plugins = str(ROOT / "tests" / "plugins")
    ended = interrupted(signal.SIGTERM, ["dump", large, DUMP], lambda text: said in text, MICROVMI_PLUGIN_PATH=plugins)
    assert "(--snapshot takes one all the same)" in ended.out
    assert lines() == ["close"]


def test_a_dump_is_itself(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    path.write_bytes(b"x" * MIB)
    assert piped("dump", path, DUMP, "--snapshot").err == ""


def test_a_terminal_shows_how_far_it_is_and_a_pipe_does_not(machine: str, tmp_path: Path) -> None:
    slow = f"{machine}&slow=read&delay=0.002&size={3 * MIB:#x}"
    done = at_terminal("dump", slow, tmp_path / "dump", "--live")
    shown = re.search(r"\rdump: [0-9.]+ MiB of 3\.0 MiB, \d+%, [0-9.]+ \w+/s, \d+ s left", done.out)
    assert shown, done
    assert done.out.splitlines()[-1].split("\r")[-1].startswith(str(tmp_path / "dump"))
    assert piped("dump", slow, tmp_path / "piped", "--live").err == ""


def test_what_a_guest_says_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    options = argparse.Namespace(json=False)
    kit.show(options, None, lambda: ["red \x1b[31m", *kit.table([("NAME",), ("a\nb",)])])
    kit.say("back \r")
    kit.show(argparse.Namespace(json=True), "red \x1b", list)
    told = capsys.readouterr()
    assert told.out == 'red \\x1b[31m\nNAME\na\\nb\n"red \\u001b"\n'
    assert told.err == "microvmi: back \\r\n"
