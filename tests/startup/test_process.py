# SPDX-License-Identifier: Apache-2.0
"""What the library may not do to the process it is in, and what the process may do to it."""

from __future__ import annotations

import ast
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from programs import Programs

PLUGINS = Path(__file__).resolve().parents[1] / "plugins"


@pytest.fixture
def plugins() -> dict[str, str]:
    """The environment in which the library finds the drivers of these tests."""
    return {"MICROVMI_PLUGIN_PATH": str(PLUGINS)}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.raw"
    path.write_bytes(bytes(64 << 10))
    return path


def test_sixteen_threads_may_race_for_the_first_call(programs: Programs) -> None:
    for _ in range(5):
        programs.run(programs.linked("race"))


def test_the_thread_of_the_first_call_may_end(programs: Programs) -> None:
    programs.run(programs.linked("threads"), "ended")


@pytest.mark.parametrize("stack", [64, 128, 256, 1024])
def test_a_thread_with_a_small_stack_may_call(programs: Programs, stack: int) -> None:
    programs.run(programs.linked("threads"), "small", stack)


@pytest.mark.parametrize("stack", [64, 256, 2048])
def test_a_fiber_may_call(programs: Programs, stack: int) -> None:
    programs.run(programs.linked("threads"), "fiber", stack)


@pytest.mark.parametrize("cancelled", ["opening", "reading", "closing"])
def test_a_cancelled_thread_ends_after_its_call(
    programs: Programs, plugins: dict[str, str], tmp_path: Path, cancelled: str
) -> None:
    uri = f"vmi://journal/?size=0x10000&delay=0.02&path={tmp_path}/journal"
    programs.run(programs.linked("cancel"), cancelled, uri, env=plugins)


def test_machines_may_be_destroyed_while_others_use_them(programs: Programs) -> None:
    programs.run(programs.linked("threads"), "destroy")


def test_a_call_under_way_ends_normally(programs: Programs, plugins: dict[str, str], tmp_path: Path) -> None:
    uri = f"vmi://journal/?size=0x10000&delay=0.02&path={tmp_path}/journal"
    programs.run(programs.linked("threads"), "underway", uri, env=plugins)


@pytest.mark.parametrize("mode", ["before", "after", "load", "exec"])
def test_fork_fails_at_once_or_works(programs: Programs, mode: str) -> None:
    programs.run(programs.linked("fork"), mode)


def test_memory_that_needs_no_python_is_not_read_in_a_child(programs: Programs, image: Path) -> None:
    programs.run(programs.linked("fork"), "direct", image)


@pytest.mark.parametrize("mode", ["process", "signals"])
def test_the_state_of_the_host_is_unchanged(programs: Programs, mode: str) -> None:
    programs.run(programs.linked("host-state"), mode, env={"HOME": "/", "LC_ALL": "C.UTF-8", "PATH": "/bin"})


def test_a_library_of_a_hypervisor_leaves_the_signals_to_the_host(programs: Programs, plugins: dict[str, str]) -> None:
    programs.run(programs.linked("host-state"), "signals", "vmi://borrower/", env=plugins)


def test_closed_standard_streams_are_not_taken_over(programs: Programs, image: Path) -> None:
    programs.run(programs.linked("host-state"), "fds", image)


def test_a_qmp_peer_that_hangs_up_does_not_kill_the_host(programs: Programs, tmp_path: Path) -> None:
    program = programs.linked("sigpipe")
    peer = shutil.copy(program, tmp_path / "qemu-system-simulator")
    with tempfile.TemporaryDirectory() as short:  # a socket's path has at most 107 bytes
        programs.run(program, peer, short)


def test_dlclose_leaves_it_in_place_and_it_loads_again(programs: Programs, library_path: Path) -> None:
    programs.run(programs.unlinked("reload"), library_path)


def test_nonsense_is_an_error(programs: Programs) -> None:
    programs.run(programs.linked("arguments"))


def unruly_ways() -> list[str]:
    """The keys of ``WAYS``, read from the driver's text."""
    tree = ast.parse((PLUGINS / "unruly.py").read_text())
    table = next(node.value for node in tree.body if isinstance(node, ast.AnnAssign))
    assert isinstance(table, ast.Dict)
    return [ast.literal_eval(key) for key in table.keys if key is not None]


@pytest.mark.parametrize("way", unruly_ways())
def test_an_unruly_driver_is_an_internal_error(programs: Programs, plugins: dict[str, str], way: str) -> None:
    programs.run(programs.linked("unruly"), way, env=plugins)


class TestNothingIsLeftBehind:
    def test_by_a_thousand_fake_machines(self, programs: Programs) -> None:
        programs.run(programs.linked("cycles"), "vmi://fake/?size=0x10000", 1000)

    def test_by_a_thousand_images(self, programs: Programs, image: Path) -> None:
        programs.run(programs.linked("cycles"), image, 1000)


class TestExit:
    """A machine that was paused runs again when the process ends by itself, once, with the process's own status."""

    @pytest.fixture
    def journal(self, tmp_path: Path) -> Path:
        return tmp_path / "journal"

    @pytest.mark.parametrize("how", ["return", "exit", "thread", "busy"])
    @pytest.mark.parametrize("code", [0, 7])
    def test_resumes(self, programs: Programs, plugins: dict[str, str], journal: Path, how: str, code: int) -> None:
        programs.run(
            programs.linked("leave"), how, f"vmi://journal/?size=0x3000&path={journal}", code, env=plugins, code=code
        )
        assert journal.read_text().split()[:2] == ["pause", "resume"]
        assert journal.read_text().count("resume") == 1

    def test_leaves_a_machine_stopped_that_was(
        self, programs: Programs, plugins: dict[str, str], journal: Path
    ) -> None:
        programs.run(programs.linked("leave"), "exit", f"vmi://journal/?stopped=1&path={journal}", env=plugins)
        assert not journal.exists(), "it was stopped already, and nothing was to be done"

    def test_by_a_signal_does_not_resume(self, programs: Programs, plugins: dict[str, str], journal: Path) -> None:
        programs.run(programs.linked("leave"), "abort", f"vmi://journal/?path={journal}", env=plugins, code=-6)
        assert journal.read_text().split() == ["pause"]

    def test_of_a_forked_child_does_not_resume(
        self, programs: Programs, plugins: dict[str, str], journal: Path
    ) -> None:
        programs.run(programs.linked("fork"), "exit", f"vmi://journal/?path={journal}", env=plugins)
        assert journal.read_text().split() == ["pause"]

    def test_may_come_while_the_first_call_is_under_way(self, programs: Programs) -> None:
        for microseconds in range(0, 80_000, 4_000):
            programs.run(programs.linked("leave"), "early", "vmi://fake/", 7, microseconds, code=7)
