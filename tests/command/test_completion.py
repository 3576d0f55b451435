# SPDX-License-Identifier: Apache-2.0
"""Completion in bash and zsh, and the manual page: both are made of the parsers, so a new subcommand is in them."""

from __future__ import annotations

import argparse
import inspect
import shutil
import subprocess
from pathlib import Path

import pytest
from command.running import MICROVMI, environment, piped
from needs import missing

from libmicrovmi_py.command import known
from libmicrovmi_py.command.page import page
from libmicrovmi_py.command.parser import filled, of_subcommand
from libmicrovmi_py.command.subcommands.completion import candidates


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH with the command in front."""
    command = tmp_path / "microvmi"
    command.write_text(f'#!/bin/sh\nexec "{MICROVMI[0]}" -m libmicrovmi_py.command "$@"\n')
    command.chmod(0o755)
    return f"{tmp_path}:{environment()['PATH']}"


def run(shell: str, script: str, path: str) -> list[str]:
    """The lines that a script prints."""
    done = subprocess.run(
        [*shell.split(), "-c", script],
        env=environment(PATH=path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("microvmi li", ["list"]),
        ("microvmi dump --for", ["--format", "--force"]),
        ("microvmi dump vm --format ", ["raw", "lime", "elf", "kdump-zlib", "kdump-zstd"]),
        ("microvmi nosuch ", []),
    ],
)
def test_bash_completes_subcommands_options_and_values(line: str, found: list[str], path: str) -> None:
    words = " ".join(f"'{word}'" for word in line.split(" "))
    script = f"COMP_WORDS=({words}); COMP_CWORD={line.count(' ')}; _microvmi"
    script = f'source <(microvmi completion bash); {script}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    assert run("bash --norc", script, path) == (found or [""])


def test_zsh_completes_as_bash_does(path: str) -> None:
    if shutil.which("zsh") is None:
        missing("zsh is not installed: apt install zsh")
    script = (
        "compdef() { :; }; compadd() { shift; print -rl -- ${(P)1}; }; _files() { print files; };"
        "source <(microvmi completion zsh); words=(microvmi dump --for); CURRENT=3; _microvmi;"
        "words=(microvmi nosuch x); _microvmi"
    )
    assert run("zsh -f", script, path) == ["--format", "--force", "files"]


def test_every_option_and_argument_is_in_the_manual_page() -> None:
    text = page().replace("\\-", "-").replace("\\e", "\\")
    for name in known.names():
        part = text.split(f'.SS "microvmi {name}"')[1].split("\n.SS ")[0].split("\n.SH ")[0]
        for action in of_subcommand(name, known.load(name))._actions:
            if action.help is argparse.SUPPRESS or action.dest == "help":
                continue
            for word in action.option_strings or [str(action.metavar or action.dest)]:
                assert word in part, (name, word)


def test_the_manual_page_is_one_for_groff() -> None:
    if shutil.which("groff") is None:
        missing("groff is not installed: apt install groff-base")
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-P-c"],
        input=page(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "microvmi list" in done.stdout


def test_every_subcommand_and_option_has_a_line_of_help() -> None:
    for name in known.names():
        assert known.summary(name).endswith("."), name
        actions = of_subcommand(name, known.load(name))._actions
        assert [action.dest for action in actions if not action.help] == [], name


def test_lines_of_help_that_are_commands_stay_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for name in known.names():
        module = known.load(name)
        told = filled(inspect.cleandoc(module.__doc__ or "")).split("\n")
        assert all(line in told for line in inspect.cleandoc(module.__doc__ or "").split("\n") if line[:1] == " "), name
    assert filled(" ".join(["$(microvmi upstream-path)"] * 9)).replace("\n", " ").split()[1] == "upstream-path)"


def test_help_says_who_reads_and_writes_what_is_served() -> None:
    told = " ".join(of_subcommand("gdb", known.load("gdb")).format_help().split())
    assert "127.0.0.1:PORT, where every user of this computer can read and write the machine" in told


def test_a_page_and_help_do_not_depend_on_the_terminal() -> None:
    assert piped("manual", COLUMNS="40", FORCE_COLOR="1").out == piped("manual", COLUMNS="200").out


def test_words_that_are_no_options_have_their_places() -> None:
    assert candidates(["completion"], "z") == ["zsh"]
    assert candidates(["completion", "bash"], "") == []
    assert candidates(["dump", "vm", "file", "more"], "") == []
