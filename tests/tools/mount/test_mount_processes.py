# SPDX-License-Identifier: Apache-2.0
"""Folders of processes, whatever a guest calls them and says that they have mapped."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from libmicrovmi_py.linux.maps import Mapping
from libmicrovmi_py.memory.virtual import AddressSpace
from libmicrovmi_py.tools.mount.processes import Processes

PLAIN = Mapping(0x400000, 0x401000, "r-xp", 0x1000, b"/bin/true")


@dataclass
class Process:
    """One that a guest tells of."""

    pid: int
    name: bytes = b"name"
    areas: tuple[Mapping, ...] = (PLAIN,)
    space: AddressSpace | None = None
    endless: bool = False

    def maps(self) -> Iterator[Mapping]:
        return itertools.repeat(PLAIN) if self.endless else iter(self.areas)


def processes(*found: Process, fixed: bool = True) -> Processes:
    return Processes(lambda: found, fixed)


def test_they_are_there_by_number() -> None:
    found = processes(Process(12), Process(3))
    assert list(found.numbers()) == [3, 12]
    assert found.number_of("12") == 12


@pytest.mark.parametrize("number", [0, -1, (1 << 22) + 1, 1 << 64])
def test_a_number_that_no_linux_has_is_no_folder(number: int) -> None:
    assert list(processes(Process(number), Process(7)).numbers()) == [7]


@pytest.mark.parametrize("name", ["", "x", "07", "+7", "-7", " 7", "7\n", "\u0667", "8", "9" * 400, "7.json"])
def test_a_name_that_is_not_its_number_is_not_there(name: str) -> None:
    with pytest.raises(KeyError):
        processes(Process(7)).number_of(name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"init", b"init\n"),
        (b"a\nb", b"a\\nb\n"),
        (b"\x1b[2J", b"\\x1b[2J\n"),
        ("bär".encode(), "bär\n".encode()),
        (b"\xff\xfe", b"\\udcff\\udcfe\n"),
        ("\u202egnp".encode(), b"\\u202egnp\n"),
        (b"", b"\n"),
    ],
)
def test_a_name_is_one_line_whatever_it_is(name: bytes, text: bytes) -> None:
    assert processes(Process(7, name)).name(7) == text


def test_what_is_mapped_is_told_as_proc_tells_it() -> None:
    areas = (PLAIN, Mapping(0x7F00_0000_0000, 0x7F00_0000_1000, "rw-p", 0, b""))
    assert processes(Process(7, areas=areas)).maps(7) == (
        b"00400000-00401000 r-xp 00001000 /bin/true\n7f0000000000-7f0000001000 rw-p 00000000\n"
    )


def test_a_path_cannot_add_a_line() -> None:
    areas = (Mapping(0, 0x1000, "r--p", 0, b"/x\n00400000-00401000 rwxp 0 /y"),)
    assert processes(Process(7, areas=areas)).maps(7).count(b"\n") == 1


def test_a_list_without_an_end_ends() -> None:
    assert processes(Process(7, endless=True)).maps(7).count(b"\n") == 1 << 17


def test_of_a_guest_that_runs_they_are_looked_for_again() -> None:
    looks = itertools.count(1)
    found = Processes(lambda: [Process(next(looks))], fixed=False)
    first, end = list(found.numbers()), time.monotonic() + 10
    while list(found.numbers()) == first:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_of_a_snapshot_they_are_looked_for_once() -> None:
    looks = itertools.count(1)
    found = Processes(lambda: [Process(next(looks))], fixed=True)
    assert [list(found.numbers()) for _ in range(3)] == [[1]] * 3
