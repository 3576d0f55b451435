# SPDX-License-Identifier: Apache-2.0
"""The example programs for virtual memory: what they print of an image with page tables, and how they fail."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pagetables import Tables

MIB = 1 << 20
BASE = 0x10000
KERNEL = 0xFFFFFFFF81000000
BANNER = b"Linux version 9.9.9-invented (nobody@nowhere) #1 SMP\n"
KERNEL_ONLY, READ_ONLY = 0b111, 0b001

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(params=["4", "5"])
def image(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, ...]:
    """A raw image with a kernel behind a hole, and pages of a process; what tells a program where its tables are."""
    memory = bytearray(4 * MIB)
    tables = Tables(memory, f"x86-{request.param}", BASE)
    tables.map(KERNEL, 0x200000, rights=KERNEL_ONLY)
    tables.map(KERNEL + 0x300000, 0x3FF000, rights=READ_ONLY)
    tables.map(KERNEL + 0x301000, 0x201000, rights=READ_ONLY)
    tables.map(0x400000, 0x202000)
    memory[0x200010:0x200024] = b"Linux version %s\n\0\0\0"
    memory[0x3FFFF0:0x400000] = BANNER[:16]
    memory[0x201000 : 0x201000 + len(BANNER) - 16] = BANNER[16:]
    (tmp_path / "image").write_bytes(memory)
    return ("-b", hex(tables.base), "-m", request.param, "./image")


def test_translate_tells_where_addresses_lie_and_why_not(run: Run, image: tuple[str, ...]) -> None:
    addresses = (KERNEL + 5, KERNEL + 0x300123, 0x400001, KERNEL + 0x1000, 1 << 62)
    lines = run("translate", *image, *map(hex, addresses)).stdout.splitlines()
    assert lines[0] == f"paging {image[3]}, base 0x10000"
    assert lines[1:4] == [
        "0xffffffff81000005 0x0000000000200005  page of 4 KiB  kernel:user rwx:---",
        "0xffffffff81300123 0x00000000003ff123  page of 4 KiB  kernel:user r--:---",
        "0x0000000000400001 0x0000000000202001  page of 4 KiB  kernel:user rwx:rwx",
    ]
    assert lines[4].startswith("0xffffffff81001000 not present: level 1, entry 0x0 at 0x")
    assert lines[5] == "0x4000000000000000 not canonical"


def test_tables_outside_of_memory_are_told(run: Run, image: tuple[str, ...]) -> None:
    told = run("translate", "-b", "0x40000000", "./image", "0").stdout.splitlines()[1]
    assert told == "0x0000000000000000 a table outside of memory: level 4, entry 0x0 at 0x40000000"


def test_read_virtual_finds_a_banner_that_lies_across_pages(run: Run, image: tuple[str, ...]) -> None:
    for start in (KERNEL, KERNEL + 0x300001, KERNEL + 0x300FF8 - MIB):
        ended = run("read-virtual", *image, hex(start))
        assert ended.stdout == f"{KERNEL + 0x300FF0:#018x} {BANNER.decode()}"


def test_read_virtual_says_when_there_is_none(run: Run, image: tuple[str, ...]) -> None:
    assert run("read-virtual", *image, "0x400000", code=1).stderr == (
        "read-virtual: no banner of a kernel behind 0x0000000000400000\n"
    )


@pytest.mark.parametrize(("name", "address"), [("translate", ["0"]), ("read-virtual", [])])
def test_a_machine_without_registers_takes_a_base(
    run: Run, image: tuple[str, ...], name: str, address: list[str]
) -> None:
    told = run(name, "./image", *address, code=1).stderr
    assert told.startswith(f"{name}: no virtual addresses of vCPU 0: ")
    assert told.endswith(" (-b BASE names page tables)\n")
    assert told.count("\n") == 1


@pytest.mark.parametrize(("name", "code"), [("translate", 0), ("read-virtual", 1)])
def test_the_machine_is_paused_meanwhile_and_runs_on(run: Run, tmp_path: Path, name: str, code: int) -> None:
    journal = tmp_path / "journal"
    run(name, "-b", "0x1000", f"vmi://journal/?size=0x3000&path={journal}", "0x1000", code=code)
    assert journal.read_text().split() == ["pause", "resume", "close"]
