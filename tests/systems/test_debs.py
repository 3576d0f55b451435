# SPDX-License-Identifier: Apache-2.0
"""The program behind ``make test-deb`` runs every command of its page; the trees it makes by itself."""

from __future__ import annotations

from documentation.blocks import blocks, commands

from .debs import PAGE, _shown

STEPS = ("make deb", "apt-get install ./", "microvmi ", "python3 ", "apt-get install gcc", "cc ", "apt-get purge")
"""How the commands begin that the program looks for."""


def test_every_command_of_the_page_is_run() -> None:
    told = [command.text for block in blocks() if block.page == PAGE for command in commands(block)]
    found = [text for begin in STEPS for text in _shown(begin)]
    assert sorted(found) == sorted(text.removeprefix("sudo ") for text in told)
    assert [len(_shown(begin)) for begin in STEPS] == [1, 1, 3, 1, 1, 1, 1]
