# SPDX-License-Identifier: Apache-2.0
"""Every subcommand is run as a user runs it: at a terminal, in a pipe, with --json, wrongly, and interrupted.

A new one needs a file in ``stands/``, and nothing else. Those for Linux guests are run by tests/live.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path

import pytest
from command.checks import check_error, check_interrupt, check_json, check_pipe, check_terminal, places_in
from command.stand import Stand, names, stand_of
from needs import missing

from libmicrovmi_py import Microvmi
from libmicrovmi_py.command import known
from libmicrovmi_py.export import raw

FAKE = [name for name in names() if stand_of(name).guest == "fake"]
INTERRUPTED = [name for name in FAKE if stand_of(name).lasting]
SIZE = 0x40000
MACHINE = f"vmi://fake/?size={SIZE:#x}&holes=0x4000-0x6000&vcpus=2"
LISTING = "MICROVMI_TEST_LISTING"


def test_every_subcommand_has_a_stand() -> None:
    assert names() == known.names()


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dump of the machine."""
    path = tmp_path_factory.mktemp("dump") / "raw"
    with Microvmi.open(MACHINE) as machine:
        layout = raw(machine)
        content = bytearray(layout.size)
        layout.read_into(0, content)
    path.write_bytes(content)
    return path


@pytest.fixture
def places(tmp_path: Path, dump: Path) -> Mapping[str, str]:
    """What stands put into their words."""
    folder = tmp_path / "folder"
    folder.mkdir()
    watched = f"vmi://watched/?path={tmp_path / 'journal'}&identity=one&size={SIZE:#x}&vcpus=2"
    return places_in(folder, MACHINE, watched, str(dump))


@pytest.fixture
def stand(name: str) -> Stand:
    """How it is used."""
    found = stand_of(name)
    if found.missing:
        missing(found.missing)
    return found


@pytest.mark.parametrize("name", FAKE)
def test_it_works_in_a_pipe(name: str, stand: Stand, places: Mapping[str, str]) -> None:
    check_pipe(name, stand, places)


@pytest.mark.parametrize("name", FAKE)
def test_it_works_at_a_terminal(name: str, stand: Stand, places: Mapping[str, str]) -> None:
    check_terminal(name, stand, places)


@pytest.mark.parametrize("name", FAKE)
def test_its_json_is_a_document(name: str, stand: Stand, places: Mapping[str, str]) -> None:
    check_json(name, stand, places)


@pytest.mark.parametrize("name", FAKE)
def test_an_error_is_one_line_and_an_exit_code(name: str, stand: Stand, places: Mapping[str, str]) -> None:
    check_error(name, stand, places)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("name", INTERRUPTED)
def test_a_signal_leaves_the_machine_as_it_was(
    name: str, stand: Stand, places: Mapping[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    journal = tmp_path / "journal"

    def lines() -> list[str]:
        return journal.read_text().splitlines() if journal.exists() else []

    listing = {LISTING: str(journal)} if "{watched}" not in " ".join(stand.lasting) else {}
    check_interrupt(name, stand, places, number, lambda: "slow" in lines(), **listing)
    if not listing:
        assert lines()[-1] == "close"
        states = [line for line in lines() if line in ("stop", "run")]
        assert not states or states[-1] == "run"
