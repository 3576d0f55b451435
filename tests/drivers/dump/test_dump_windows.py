# SPDX-License-Identifier: Apache-2.0
"""Windows crash dumps of 32-bit and ARM64 machines, and those with ranges: written from their descriptions."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from drivers.dump import builders, builders_windows
from drivers.dump.builders import PAGE, Memory, values
from drivers.dump.test_dump_formats import assert_holds
from processors import x86_registers

from libmicrovmi_py import DriverUnavailableError, IoError, Microvmi
from libmicrovmi_py.arch.x86.registers import DEBUG, STATE
from libmicrovmi_py.model import Architecture, MemoryRange

SOURCE = random.Random("windows")
MEMORY = {
    0x1000: SOURCE.randbytes(9 * PAGE),
    0x100000: SOURCE.randbytes(20 * PAGE),
    0x101000000: SOURCE.randbytes(4 * PAGE),
}
HEADER = builders.windows(MEMORY, context=builders.windows_context(values(0)))[:0x2000]
NARROW = builders_windows.windows_32(MEMORY, context=builders_windows.context_32(values(0)), pae=True)


def ranges(memory: Memory, kind: int, room: int = 64, rubbish: bytes = b"") -> bytes:
    """A dump with ranges."""
    return builders_windows.with_ranges(memory, HEADER, kind, room=room, rubbish=rubbish)


FORMATS: dict[str, Callable[[Memory], bytes]] = {
    **{f"32-bit, type {kind}": partial(builders_windows.windows_32, kind=kind) for kind in (1, 2, 5, 6, 7)},
    **{f"ranges, type {kind}": partial(ranges, kind=kind) for kind in (8, 9, 10)},
    "ARM64, full": partial(builders.windows, machine=0xAA64),
    "ARM64, bitmap": partial(builders.windows, machine=0xAA64, kind=5),
}


def opened(folder: Path, content: bytes, **options: str) -> Microvmi:
    """A file of that content as a machine."""
    path = folder / "the dump"
    path.write_bytes(content)
    return Microvmi(driver="dump", path=path, **options)


def changed(content: bytes, offset: int, form: str, *words: int | bytes) -> bytes:
    """The content with these words at that offset."""
    made = bytearray(content)
    struct.pack_into("<" + form, made, offset, *words)
    return bytes(made)


@pytest.mark.parametrize("name", FORMATS)
def test_memory_is_what_was_put_in(tmp_path: Path, name: str) -> None:
    with opened(tmp_path, FORMATS[name](MEMORY)) as machine:
        assert machine.memory_map() == tuple(MemoryRange(start, len(content)) for start, content in MEMORY.items())
        assert machine.vcpu_count() == 2
        assert_holds(machine, MEMORY)


def test_ranges_may_be_in_any_order_and_end_where_the_dump_says(tmp_path: Path) -> None:
    backwards = dict(reversed(MEMORY.items()))
    for kind in (8, 9, 10):
        with opened(tmp_path, ranges(backwards, kind)) as machine:
            assert_holds(machine, MEMORY)
    rubbish = struct.pack("<2Q", 0x777, 3)
    with opened(tmp_path, ranges(MEMORY, 10, rubbish=rubbish)) as machine:
        assert len(machine.memory_map()) == len(MEMORY)
    many = {0x1000 + 0x2000 * at: bytes([at % 256]) * PAGE for at in range(5000)}
    with opened(tmp_path, ranges(many, 9, room=5000)) as machine:
        assert len(machine.memory_map()) == 5000
        assert machine.read_physical(0x1000 + 0x2000 * 4999, PAGE) == many[0x1000 + 0x2000 * 4999]


# ----------------------------------------------------------------------------------------------------------- registers


def test_a_dump_with_ranges_has_one_processors_registers(tmp_path: Path) -> None:
    with opened(tmp_path, ranges(MEMORY, 9)) as machine:
        registers = x86_registers(machine, 0)
        assert {name: getattr(registers, name) for name in builders.GENERAL} == {
            name: values(0)[name] for name in builders.GENERAL
        }
        assert registers.cr3 == 0x1AA000


def test_a_32_bit_dump_has_one_processors_registers(tmp_path: Path) -> None:
    with opened(tmp_path, NARROW) as machine:
        first, second = machine.read_states()
        assert len(second) == 0
        names = [name for name in builders.GENERAL if not name[1:].isdigit()]
        assert {name: first[name] for name in names} == {name: values(0)[name] for name in names}
        selectors = {f"{name}_selector": values(0)[name][2] for name in builders.SEGMENTS}
        assert {name: first[name] for name in selectors} == selectors
        assert [first[name] for name in DEBUG] == list(builders_windows.DEBUG)
        assert first["cr3"] == 0x185020
        assert set(first) == {*names, *selectors, *DEBUG, "cr3"} <= set(STATE)


@pytest.mark.parametrize(
    ("flags", "known"),
    [
        (0x10001, {"rbp", "rip", "rflags", "rsp", "cs_selector", "ss_selector"}),
        (0x10002, {"rax", "rbx", "rcx", "rdx", "rsi", "rdi"}),
        (0x10004, {"ds_selector", "es_selector", "fs_selector", "gs_selector"}),
        (0x10010, {*DEBUG}),
        (0x1F, set()),
    ],
)
def test_a_32_bit_context_has_what_its_flags_say(tmp_path: Path, flags: int, known: set[str]) -> None:
    context = builders_windows.context_32(values(1), flags)
    with opened(tmp_path, builders_windows.windows_32(MEMORY, context=context)) as machine:
        assert set(machine.read_state()) == {"cr3", *known}


@pytest.mark.parametrize(
    ("pstate", "pointer"), [(0x60000005, "sp_el1"), (0x60000000, "sp_el0"), (0x60000004, "sp_el0")]
)
def test_an_arm64_dump_has_one_processors_registers(tmp_path: Path, pstate: int, pointer: str) -> None:
    context = builders_windows.context_arm64(pstate)
    for kind in (1, 5):
        with opened(tmp_path, builders.windows(MEMORY, machine=0xAA64, kind=kind, context=context)) as machine:
            state, second = machine.read_states()
            assert state.architecture is machine.driver.architecture is Architecture.AARCH64
            assert [state[f"x{number}"] for number in range(31)] == [0xA64000000 + number for number in range(31)]
            assert (state[pointer], state["pc"], state["pstate"]) == (0xA6400001F, 0xA64000020, pstate)
            assert (len(state), len(second)) == (34, 0)


def test_an_arm64_context_has_what_its_flags_say(tmp_path: Path) -> None:
    for flags, known in (
        (0x400001, {"x29", "x30", "sp_el1", "pc", "pstate"}),
        (0x400002, {f"x{number}" for number in range(29)}),
        (0x200003, set()),
    ):
        context = builders_windows.context_arm64(5, flags)
        with opened(tmp_path, builders.windows(MEMORY, machine=0xAA64, context=context)) as machine:
            assert set(machine.read_states()[0]) == known


# -------------------------------------------------------------------------------------------------------------- damage

RANGES, COMPLETE = ranges(MEMORY, 8), ranges(MEMORY, 10)
BITMAP = builders_windows.windows_32(MEMORY, kind=5)
DAMAGED = {
    "no runs": (changed(NARROW, 0x64, "I", 0), "0 runs"),
    "too many runs": (changed(NARROW, 0x64, "I", 87), "87 runs"),
    "another sum": (changed(NARROW, 0x68, "I", 7), "0x7 pages in all"),
    "runs not in order": (changed(NARROW, 0x6C, "I", 0x200), "overlap or are not in order"),
    "processors": (changed(NARROW, 0x24, "I", 1 << 20), "1048576 processors"),
    "bitmap's header": (changed(BITMAP, 0x1000, "8s", b"ANOTHER!"), "no header of a bitmap at 0x1000"),
    "bitmap into pages": (changed(BITMAP, 0x1030, "Q", 1 << 40), "reaches into the pages"),
    "bitmap's count": (changed(BITMAP, 0x1028, "Q", 7), "0x21 pages, not 0x7"),
    "mark of ranges": (changed(RANGES, 0x2000, "I", 0x41), "no header of ranges at 0x2000"),
    "header of ranges": (changed(RANGES, 0x2004, "8s", b"RDMPDUMB"), "no header of ranges at 0x2000"),
    "size of ranges": (changed(RANGES, 0x2010, "2Q", 8, 0x2028), "ranges have 0x8 bytes"),
    "other size of ranges": (changed(RANGES, 0x2018, "Q", 1 << 40), "pages begin at 0x10000000000"),
    "ranges beyond": (changed(RANGES, 0x2010, "2Q", 1 << 40, 0x2020 + (1 << 40)), "table of ranges would lie"),
    "huge range": (changed(RANGES, 0x2030, "2Q", 1, 1 << 63), "up to page 0x8000000000000001"),
    "range beyond": (changed(RANGES, 0x2030, "2Q", 1, 1 << 30), "memory from page 0x1 on would lie"),
    "ranges twice": (changed(RANGES, 0x2040, "Q", 2), "memory at 0x2000 is there twice"),
    "too few ranges": (changed(COMPLETE, 0x2040, "Q", 0), "it has 0x9 pages, not 0x21 as a header says"),
    "no ranges": (changed(RANGES, 0x2030, "Q", 0), "there is no memory in it"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_header_that_lies_is_an_error(tmp_path: Path, name: str) -> None:
    content, text = DAMAGED[name]
    with pytest.raises(IoError, match=f"{tmp_path}.* is cut short or damaged: .*{text}"):
        opened(tmp_path, content)


REFUSED = {
    "triage": (changed(NARROW, 0xF88, "I", 4), "of type 4"),
    "ranges of 32 bits": (changed(NARROW, 0xF88, "I", 8), "of type 8"),
    "type 11": (changed(RANGES, 0xF98, "I", 11), "of type 11"),
    "old kernel dump": (
        builders_windows.old_kernel({0x1000: bytes(PAGE)}, changed(HEADER, 0xF98, "I", 2), wide=True),
        "a kernel dump of a Windows before 8",
    ),
    "old kernel dump of 32 bits": (
        builders_windows.old_kernel({0x1000: bytes(PAGE)}, changed(NARROW[:PAGE], 0xF88, "I", 2), wide=False),
        "a kernel dump of a Windows before 8",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_types_are_refused_by_name(tmp_path: Path, name: str) -> None:
    content, text = REFUSED[name]
    with pytest.raises(DriverUnavailableError, match=f"{text}, which cannot be read: make a full"):
        opened(tmp_path, content)


@pytest.mark.parametrize("content", [NARROW, BITMAP, RANGES, COMPLETE], ids=["runs", "bitmap", "ranges", "complete"])
def test_of_a_dump_that_is_cut_what_is_there_is_right(tmp_path: Path, content: bytes) -> None:
    for missing in (1, 3 * PAGE, 10 * PAGE):
        with pytest.raises(IoError, match=r"bytes are missing.*, or open what is there with partial=on"):
            opened(tmp_path, content[:-missing])
        with opened(tmp_path, content[:-missing], partial="on") as machine:
            there = machine.memory_map()
            for item in there:
                start = max(address for address in MEMORY if address <= item.start)
                whole = MEMORY[start][item.start - start :][: item.size]
                assert machine.read_physical(item.start, item.size) == whole
            assert sum(item.size for item in there) == 33 * PAGE - missing


@pytest.mark.parametrize(
    "content",
    [changed(BITMAP, 0x1028, "Q", 7), changed(BITMAP, 0x1028, "Q", 99), changed(COMPLETE, 0x2028, "Q", 99)],
    ids=["fewer", "more", "ranges"],
)
def test_a_count_that_does_not_fit_is_passed_over_when_asked_to(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(IoError, match=r"it has 0x21 pages, not .*partial=on"):
        opened(tmp_path, content)
    with opened(tmp_path, content, partial="on") as machine:
        assert_holds(machine, MEMORY)
