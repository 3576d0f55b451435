# SPDX-License-Identifier: Apache-2.0
"""Every code block and every command of README and docs is run by some test, and what they name is there."""

from __future__ import annotations

import re
import subprocess
from collections import Counter

import pytest
from documentation.blocks import NOT_CODE, ROOT, SHELLS, Block, Command, blocks, commands, pages
from documentation.elsewhere import BLOCKS, BY_HAND, COMMANDS, PAGES, runs_block, runs_command
from needs import missing

EVERY = blocks()
SHELL_COMMANDS = [command for block in EVERY if block.language in SHELLS for command in commands(block)]
LIVE_LANGUAGES = {"c", "python", "ini"}
MENTIONED = re.compile(r"`(?:[A-Z]+=\S+ )?make ([a-z-]+)[^`]*`")
TARGET = re.compile(r"^([a-z-]+):", re.MULTILINE)


def test_every_block_says_what_language_it_is() -> None:
    assert [block.name for block in EVERY if not block.language] == [], f"a language, or {NOT_CODE}"


def test_every_block_is_run() -> None:
    """By the test that is named for it, or on a live guest: nothing is left over."""
    code = [block for block in EVERY if block.language not in (NOT_CODE, *SHELLS)]
    nobody = [block.name for block in code if not runs_block(block) and block.language not in LIVE_LANGUAGES]
    assert nobody == [], "tests/documentation/elsewhere.py names the test that runs it"
    counted = Counter("elsewhere" if runs_block(block) else "live" for block in code)
    counted += Counter("elsewhere" if runs_command(command) else "live" for command in SHELL_COMMANDS)
    assert sum(counted.values()) == len(code) + len(SHELL_COMMANDS)
    print(f"{len(code)} blocks of code and {len(SHELL_COMMANDS)} commands: {dict(counted)}")


@pytest.mark.parametrize("test", sorted({*COMMANDS.values(), *BLOCKS.values(), *PAGES.values()}))
def test_the_tests_that_run_them_exist(test: str) -> None:
    file, _, function = test.partition("::")
    assert (ROOT / file).exists()
    assert not function or f"def {function}(" in (ROOT / file).read_text()


def test_nothing_is_kept_for_a_command_that_no_page_has() -> None:
    texts = [f"{command.text} " for command in SHELL_COMMANDS]
    assert [begin for begin in COMMANDS if not any(text.startswith(begin) for text in texts)] == []
    assert {block.page for block in EVERY} >= BY_HAND.keys()


def test_packages_that_pages_name_are_those_of_the_tests() -> None:
    """All of them install, says apt, which is asked and does nothing."""
    named = set()
    for command in SHELL_COMMANDS:
        if found := re.match(r"(?:sudo )?apt(?:-get)? install (.*)", command.text):
            named |= {word for word in found[1].split() if not word.startswith("-")}
    packages = sorted(name for name in named if not name.startswith("./"))
    try:
        done = subprocess.run(["apt-get", "install", "-s", *packages], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        missing("no apt-get; to enable: a Debian")
    assert done.returncode == 0, done.stderr


def test_targets_of_make_that_pages_name_exist() -> None:
    targets = set(TARGET.findall((ROOT / "Makefile").read_text()))
    named = {found for page in pages() for found in MENTIONED.findall(page.read_text())}
    named |= {command.text.split()[1] for command in SHELL_COMMANDS if re.match(r"make [a-z]", command.text)}
    assert named - targets == set()


def test_commands_are_found_with_what_they_print_and_what_is_typed() -> None:
    block = Block("p", 1, "console", "$ a b  # why\nx\n>>> y\nz\nhost1# c &\n")
    assert commands(block) == [Command("p", 2, "a b", ("y",), ("x", "z")), Command("p", 6, "c &")]
    script = Block("p", 1, "sh", "# a comment\na 'b#c' \\\n    d\n\ne\n")
    assert [command.text for command in commands(script)] == ["a 'b#c'     d", "e"]
