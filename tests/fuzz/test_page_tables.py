# SPDX-License-Identifier: Apache-2.0
"""Page tables that no good guest makes: by chance, and good ones with some entries changed.

What the library says of them is what a walker in Python says that shares no code with it. A program of C does much more
of it, compiled with the library's C files and checked by the compiler's sanitizers, and finds that the library agrees
with itself.
"""

from __future__ import annotations

import os
import runpy
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzz.mutator import SCALE, SEED, Mutator
from memory.test_mapped import RegionDriver
from pagetables import MIB, MODES, Tables
from pagewalk import leaves, memory_reader, runs, walk

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.fake import FakeDriver
from libmicrovmi_py.errors import NotMappedError
from libmicrovmi_py.memory.virtual import AddressSpace
from libmicrovmi_py.paging import Paging

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "libmicrovmi_py" / "_native"
START = MIB // 2


def made(chance: Mutator, mode: str) -> tuple[Tables, list[int]]:
    """Tables with pages in a few places, and addresses there."""
    tables = Tables(bytearray(4 * MIB), mode, START, physical_bits=chance.choice((0, 0, 36, 40)))
    sizes, addresses = tables.mode.page_sizes, []
    top = 1 << 64 if tables.mode.high else 1 << 32
    for place in (0, 1 << 31, tables.mode.high or 1 << 30, top - 256 * sizes[0]):
        at = place
        for _ in range(chance.randint(1, 12)):
            size = chance.choice((*sizes, sizes[0], sizes[0]))
            if at % size or at >= top:
                size = sizes[0]
            if at + size > top:
                break
            tables.map(at, chance.randrange(64) * size, size)
            addresses.append(at)
            at += size * chance.choice((1, 1, 3))
    return tables, addresses


def change(chance: Mutator, tables: Tables) -> None:
    """Make one entry of some table another one."""
    size = tables.mode.entry_size
    at = START + chance.randrange((tables.end - START) // size) * size
    if chance.random() < 0.7:  # one that is used
        used = [place for place in range(START, tables.end, size) if any(tables.memory[place : place + size])]
        at = chance.choice(used)
    before = int.from_bytes(tables.memory[at : at + size], "little")
    table = START + chance.randrange((tables.end - START) // 4096) * 4096
    entry: Callable[[], int] = chance.choice(
        (
            lambda: before ^ 1 << chance.randrange(8 * size),
            lambda: before ^ 1 << chance.randrange(13),
            lambda: table | before & 0xFFF | chance.choice((1, 3, 7)),
            lambda: chance.getrandbits(8 * size) | 1,
            lambda: before + chance.choice((4096, -4096)),
            lambda: 0,
        )
    )
    tables.memory[at : at + size] = (entry() % (1 << 8 * size)).to_bytes(size, "little")


def some_addresses(chance: Mutator, tables: Tables, addresses: list[int]) -> list[int]:
    edges = (0, (1 << 32) - 1, 1 << 47, (1 << 64) - 1, tables.mode.high, max(tables.mode.high - 1, 0), 1 << 63)
    near = [(chance.choice(addresses) + chance.randrange(-9000, 9000)) % (1 << 64) for _ in range(25)]
    return [*near, *edges, chance.getrandbits(64), chance.getrandbits(33)]


def check_translations(space: AddressSpace, tables: Tables, addresses: list[int]) -> None:
    read = memory_reader(tables.memory)
    for address in addresses:
        found, expected = space.translate(address), walk(read, tables.space, address)
        assert tuple(found) == tuple(expected), f"{address:#x}: {found}, not {expected}"


def check_map(space: AddressSpace, tables: Tables, start: int, end: int) -> None:
    read, found = memory_reader(tables.memory), []
    for begin, size, physical, rights, page in runs(leaves(read, tables.space, start, end)):
        first, last = max(begin, start), min(begin + size, end)
        found.append((first, last - first, physical + first - begin, rights, page))
    assert [tuple(item) for item in space.mapped(start, end)] == found


def check_read(space: AddressSpace, tables: Tables, address: int, size: int) -> None:
    read, expected, at = memory_reader(tables.memory), bytearray(), address
    while len(expected) < size and at < 1 << 64:
        physical = walk(read, tables.space, at).physical
        part = min(4096 - at % 4096, size - len(expected))
        piece = b"" if physical is None else tables.memory[physical : physical + part]
        expected += piece
        if len(piece) < part:
            break
        at += part
    buffer = bytearray(b"\xee" * size)
    assert space.read_virtual_into(address, buffer) == len(expected)
    assert buffer == expected + b"\xee" * (size - len(expected))
    space.read_virtual_padded_into(address, buffer)
    assert buffer[: len(expected)] == expected
    if len(expected) < size:
        with pytest.raises(NotMappedError) as raised:
            space.read_virtual(address, size)
        assert raised.value.completed == len(expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("driver", ["frames", "regions"])
def test_changed_tables_are_what_a_walker_sees(driver: str, mode: str) -> None:
    for number in range(2 * SCALE):
        chance = Mutator(f"tables {driver} {mode}", number)
        tables, addresses = made(chance, mode)
        for _ in range(chance.choice((0, 1, 5, 40))):
            change(chance, tables)
        memory = {0: tables.memory}
        with Microvmi.from_driver(FakeDriver(memory) if driver == "frames" else RegionDriver(memory)) as machine:
            paging, base, upper, control, bits = tables.space
            space = machine.address_space(
                base, paging=Paging(paging), upper_base=upper, control=control, physical_bits=bits
            )
            asked = some_addresses(chance, tables, addresses)
            check_translations(space, tables, asked)
            for start in asked[:8]:
                check_map(space, tables, start, min(start + chance.choice((1, 20_000, 3 * MIB)), 1 << 64))
            for start in asked:
                check_read(space, tables, start, chance.choice((0, 1, 8, 5000, 20_000)))


@pytest.fixture(scope="session")
def fuzzer(tmp_path_factory: pytest.TempPathFactory, include_dir: Path) -> Path:
    """``c_tests/tables.c`` with the library's C files in it, and with sanitizers where the compiler has them."""
    directory = tmp_path_factory.mktemp("fuzzer")
    units = runpy.run_path(str(NATIVE / "units.py"))  # the package that is tested may be one without C files
    (directory / "direct.h").write_text(units["unit"](units["DIRECT"]))
    flags = ["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-std=gnu11", "-D_GNU_SOURCE"]
    flags += ["-pthread", f"-I{include_dir}", f"-I{NATIVE}", "-include", str(directory / "direct.h")]
    source = ROOT / "c_tests" / "tables.c"
    for checks in (["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"], []):
        command = [
            *shlex.split(os.environ.get("CC") or "cc"),
            *flags,
            *checks,
            "-o",
            str(directory / "tables"),
            str(source),
        ]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode == 0:
            return directory / "tables"
    raise AssertionError(built.stderr)


def test_tables_by_chance_under_sanitizers(fuzzer: Path) -> None:
    command = [str(fuzzer), str(SEED), "0", str(100 * SCALE), "100000"]
    ended = subprocess.run(
        command, env={"ASAN_OPTIONS": "detect_leaks=0"}, capture_output=True, text=True, timeout=3600, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"{100 * SCALE} rounds\n"
