# SPDX-License-Identifier: Apache-2.0
"""Memory of a Linux guest that no good kernel has: each look ends soon, in an answer or in one line."""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from fuzz.mutator import SCALE, Mutator
from fuzz.outcomes import told
from linux.made import DIRECT, HEAP_AT, IMAGE, IMAGE_AT, NOTE_AT, TABLES_AT, TEXT, Made, types
from linux.packing import LAYOUTS

from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import IoError, MicrovmiError
from libmicrovmi_py.linux.btf import Types
from libmicrovmi_py.linux.kallsyms import unpacked_names
from libmicrovmi_py.linux.kernel import Kernel
from libmicrovmi_py.linux.log import log
from libmicrovmi_py.linux.tasks import tasks

ROUNDS = 12 * SCALE
SECONDS = 20.0
"""Far above what any look takes on a busy machine, far below one without an end."""

LARGEST = 192 << 20
"""Bytes that a look may take."""


def looked(made: Made) -> list[str]:
    """All that is told of a guest, within time; what ends in an error is that error's line."""
    start = time.monotonic()
    machine = made.machine_in_kernel()
    found = list(looks(machine))
    assert time.monotonic() - start < SECONDS
    assert all("\n" not in line for line in found)
    return found


def looks(machine: Microvmi) -> Iterator[str]:
    kernel = told("a kernel", lambda: Kernel.find(machine))
    if not isinstance(kernel, Kernel):
        yield str(kernel)
        return
    steps: list[Callable[[], object]] = [
        lambda: [(task, task.shown_name(), task.command_line()) for task in tasks(kernel, threads=True)],
        lambda: [list(task.maps()) for task in tasks(kernel)],
        lambda: list(log(kernel)),
        lambda: (kernel.build_id, kernel.symbols.get("schedule"), list(kernel.types or ())),
    ]
    for number, step in enumerate(steps):
        result = told(number, step)
        yield str(result) if isinstance(result, MicrovmiError) else f"{result!r}"[:1000]


def places(made: Made) -> Iterator[tuple[int, int]]:
    """Start and size of what is in use: the note, tasks and trees, the image's data, page tables."""
    yield NOTE_AT, 0x800
    yield HEAP_AT, 0x1800
    yield made.symbols.places["num_syms"] - IMAGE + IMAGE_AT, len(made.symbols.content)
    yield IMAGE_AT + TEXT, 0x3000
    yield TABLES_AT, made.tables.end - TABLES_AT


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("named", [True, False], ids=["named", "by shape"])
def test_changed_memory_is_an_answer_or_an_error(layout: str, named: bool) -> None:
    made = Made(layout, named=named, note=named)
    good = bytes(made.memory)
    right = looked(made)
    assert len(right) == 4
    others = 0
    for number in range(ROUNDS):
        chance = Mutator(f"linux {layout} {named}", number)
        for _ in range(chance.choice((1, 4, 32))):
            start, size = chance.choice(list(places(made)))
            at = start + chance.randrange(size // 8) * 8
            word = chance.choice((0, 1, (1 << 64) - 1, chance.randrange(1 << 64), DIRECT + HEAP_AT, at, at - 8))
            made.memory[at : at + 8] = struct.pack("<Q", word & (1 << 64) - 1)
        others += looked(made) != right
        made.memory[:] = good
    assert others


def test_changed_types_are_an_answer_or_an_error() -> None:
    content = types().content()
    ends = {told(number, lambda number=number: asked(number, content)) is None for number in range(300 * SCALE)}  # type: ignore[misc]
    assert ends == {True, False}


def asked(number: int, content: bytes) -> None:
    """Ask for all that is known of types with two things changed."""
    chance = Mutator("btf", number)
    found = Types(chance.data(chance.data(content)))
    for record in found:
        found.size_of(record.number)
    for name in ("task_struct", "mm_struct", "cred"):
        structure = found.struct(name)
        assert all(structure.field(member.name) for member in structure.members() if member.name)
    found.enum("color")


def _many_symbols(made: Made) -> None:
    made.put(made.symbols.places["num_syms"], b"\xff\xff\x0f\0")


def _list_of_itself(made: Made) -> None:
    made.put(made.tasks[1], struct.pack("<QQ", made.tasks[1], made.tasks[1]))
    made.put(made.tasks[0], struct.pack("<Q", made.tasks[1]))


def _wide_tree(made: Made) -> None:
    """Every entry of a node leads to itself."""
    at = made.process_memory + 32 - DIRECT
    node = int.from_bytes(made.memory[at : at + 8], "little") & ~0xFF
    made.word(made.process_memory + 32, node | 2 << 3 | 2)
    made.put(node + 8, struct.pack("<15Q", *range(1, 16)) + bytes(8))
    made.put(node + 128, struct.pack("<16Q", *[node | 2 << 3 | 2] * 16))


def _long_log(made: Made) -> None:
    made.put(made.log_ring, struct.pack("<I", 20))
    made.put(made.log_ring + 24, struct.pack("<QQ", 1 << 40, 0))
    made.put(made.log_ring + 48, struct.pack("<I", 26))


def _huge_types(made: Made) -> None:
    """Types of as many bytes as may be, in image pages that are mapped again and again."""
    head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, (1 << 32) - 4, 0, 1)
    made.put(made.places["__start_BTF"], head)


def _many_notes(made: Made) -> None:
    page = made.memory[NOTE_AT : NOTE_AT + 0x1000].replace(b"SYMBOL(_stext)", b"SYMBOL(_stexx)")
    for at in range(3 << 20, 4 << 20, 0x1000):
        made.memory[at : at + 0x1000] = page
    made.memory[NOTE_AT : NOTE_AT + 0x1000] = bytes(0x1000)


@pytest.mark.parametrize("spoil", [_many_symbols, _list_of_itself, _wide_tree, _long_log, _huge_types, _many_notes])
def test_tables_that_are_made_to_be_large_are_bounded(spoil: Callable[[Made], None]) -> None:
    made = Made(all_symbols=spoil is not _many_notes)
    spoil(made)
    tracemalloc.start()
    try:
        found = looked(made)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found
    assert peak < LARGEST


def test_names_that_are_made_to_be_long_are_bounded() -> None:
    """Each packed byte stands for as long a text as there may be, and each name has as many of them as there may."""
    tracemalloc.start()
    try:
        with pytest.raises(IoError, match="its names are longer than"):
            unpacked_names((b"\xff\x07" + b"\1" * 1023) * 2000, 2000, ["x" * 63] * 256)
        assert tracemalloc.get_traced_memory()[1] < LARGEST
    finally:
        tracemalloc.stop()
