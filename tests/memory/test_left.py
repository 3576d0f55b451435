# SPDX-License-Identifier: Apache-2.0
"""From C: threads that end, are cancelled or jump in the middle of a read, machines that end, files that are cut."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from needs import missing
from programs import Programs
from qemu_simulators import QemuSimulators

SIZE = 4 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.raw"
    path.write_bytes(b"\x5a" * SIZE)
    return path


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[QemuSimulators]:
    with QemuSimulators(tmp_path) as simulators:
        yield simulators


@pytest.mark.parametrize("mode", ["jump", "late", "many", "seek", "fence"])
def test_what_threads_leave_behind_holds_nobody_up(programs: Programs, image: Path, mode: str) -> None:
    programs.run(programs.linked("left"), mode, image)


def test_nor_what_they_leave_of_two_machines_in_one_call(programs: Programs, tmp_path: Path) -> None:
    images = [tmp_path / str(number) for number in range(2)]
    for number, path in enumerate(images):
        path.write_bytes((b"\5" * 0x3000 + bytes([number]) * 0x2000).ljust(8 * SIZE, b"\5"))
    programs.run(programs.linked("differ"), "jump", *images, "20")


@pytest.mark.parametrize("mode", ["late", "many", "fence"])
def test_nor_what_they_leave_of_words_of_a_machine(programs: Programs, machines: QemuSimulators, mode: str) -> None:
    """A thread reads them by what it knows of the last one, which words of an image are not read by."""
    programs.run(programs.linked("left"), mode, machines.start())


@pytest.mark.parametrize("ram", [("-fake", "private"), ()], ids=["private", "shared"])
@pytest.mark.parametrize("mapped", ["yes", "no"])
def test_cancelled_readers_do_not_hold_a_destroy_up(
    programs: Programs, machines: QemuSimulators, ram: tuple[str, ...], mapped: str
) -> None:
    programs.run(programs.linked("left"), "cancel", f"{machines.start(*ram)}&mapped={mapped}")


def test_cancelled_readers_of_what_python_reads_leave_python_usable(programs: Programs) -> None:
    programs.run(programs.linked("left"), "cancel", "vmi://fake/?size=0x200000&cache=0")


@pytest.mark.parametrize(
    ("ram", "options", "extra"),
    [
        ("private", ("-fake", "private"), ""),
        ("paused", ("-fake", "private"), ""),
        ("shared", (), ""),
        ("shared", (), "&mapped=no"),
        ("paused", ("-fake", "private"), "&cache=0"),
    ],
)
def test_a_killed_machine_is_noticed_by_every_reader(
    programs: Programs, machines: QemuSimulators, ram: str, options: tuple[str, ...], extra: str
) -> None:
    program = programs.linked("killed")
    for _ in range(3):
        uri = machines.start(*options)
        programs.run(program, uri + extra, machines.pid, ram)


def test_a_read_that_never_ends_does_not_hold_a_destroy_up(programs: Programs, machines: QemuSimulators) -> None:
    needs_root()
    uri = machines.start("-fake", "private", "-fake", "missing")
    programs.run(programs.linked("left"), "stuck", uri, machines.pid)


def needs_root() -> None:
    if os.geteuid() != 0:
        missing("the kernel lets only root make another process's reads wait; to enable: run as root")


@pytest.mark.parametrize("what", ["large", "medium", "new"])
def test_a_file_that_is_cut_is_an_error_of_reads_that_look(programs: Programs, image: Path, what: str) -> None:
    programs.run(programs.linked("cut"), image, image, what)


def test_nothing_of_a_file_that_is_not_mapped_ends_the_process(programs: Programs, image: Path) -> None:
    programs.run(programs.linked("cut"), image, f"vmi://dump/?path={image}&mapped=no", "all")
