# SPDX-License-Identifier: Apache-2.0
"""What programs of others print of a guest, at a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest
from command.running import at_terminal, piped
from needs import with_extra

PLUGIN = r"""
from volatility3.framework import interfaces, renderers


class Names(interfaces.plugins.PluginInterface):
    _required_framework_version = (2, 0, 0)

    @classmethod
    def get_requirements(cls):
        return []

    def run(self):
        return renderers.TreeGrid([("Number", int), ("Name", str)], iter([(0, (7, "a\x1b[2Jname\x9b\u202e"))]))
"""


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """volatility with a plugin that shows a name as a guest may have one, on a dump."""
    with_extra("volatility3")
    (tmp_path / "dump").write_bytes(bytes(1 << 20))
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "names.py").write_text(PLUGIN)
    return ["vol", f"{tmp_path}/dump", "-q", "-p", f"{tmp_path}/plugins", "names.Names"]


def test_a_name_that_volatility_shows_does_not_reach_a_terminal_as_it_is(words: list[str]) -> None:
    done = at_terminal(*words)
    assert done.code == 0, done
    assert "7\ta\\x1b[2Jname\\x9b\\u202e" in done.out, done
    assert not {"\x1b", "\x9b", "\u202e"} & set(done.out), done


def test_in_a_pipe_it_is_as_volatility_has_it(words: list[str]) -> None:
    done = piped(*words)
    assert "7\ta\x1b[2Jname\x9b\u202e" in done.out, done
