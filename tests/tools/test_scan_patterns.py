# SPDX-License-Identifier: Apache-2.0
"""What a scan looks for: every match once, wherever pieces and holes begin and end."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from libmicrovmi_py.errors import InvalidArgumentError
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.tools.scan.functions import hashes, pattern
from libmicrovmi_py.tools.scan.patterns import Pattern
from libmicrovmi_py.tools.scan.pieces import MOST_AROUND, PIECE, pieces, ram

MIB = 1 << 20


def image(path: Path, size: int, parts: dict[int, bytes]) -> Microvmi:
    """A raw image that holds these parts, and holes."""
    with open(path, "wb") as file:
        file.truncate(size)
        for at, data in parts.items():
            file.seek(at)
            file.write(data)
    return Microvmi.open(f"vmi://dump/?path={path}&format=raw")


def matches(machine: Microvmi, *words: str) -> list[int]:
    return [int(str(found["address"]), 16) for found in pattern(machine, *words)]


def test_matches_at_the_edges_of_pieces_and_of_memory_are_found_once(tmp_path: Path) -> None:
    size = 3 * MIB
    starts = [0, PIECE - 8, PIECE - 2, 2 * PIECE - 3, 2 * PIECE + 4, size - 6]
    data = bytearray(b"x" * size)
    for start in starts:
        data[start : start + 6] = b"needle"
    with image(tmp_path / "a", size, {0: bytes(data)}) as machine:
        assert matches(machine, "needle") == starts
        assert matches(machine, "needle", "y" * MOST_AROUND) == starts


def test_matches_reach_into_holes(tmp_path: Path) -> None:
    """Zeros about what is filled are a part of a match as any other byte."""
    size = 8 * MIB
    with image(tmp_path / "a", size, {4 * MIB: b"A" + bytes(4094) + b"B"}) as machine:
        assert matches(machine, "hex:00000041") == [4 * MIB - 3]
        assert matches(machine, "hex:42000000") == [4 * MIB + 4095]
        assert matches(machine, "hex:????42??00") == [4 * MIB + 4093]


@pytest.mark.parametrize("seed", range(4))
def test_all_matches_are_those_of_one_look_at_everything(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    size = 2 * MIB + chance.randrange(1, 256) * 4096
    parts = {
        chance.randrange(size >> 12) << 12: chance.randbytes(4096).translate(bytes(range(4)) * 64) for _ in range(40)
    }
    whole = bytearray(size)
    for at, data in parts.items():
        whole[at : at + len(data)] = data
    with image(tmp_path / "a", size, parts) as machine:
        for word, expression in (("hex:0102", b"\1\2"), ("hex:00??03", b"\0.\3"), ("hex:010101", b"\1\1\1")):
            wanted = [found.start() for found in re.finditer(b"(?s)(?=%s)" % expression, whole)]
            assert matches(machine, word) == wanted


@pytest.mark.parametrize(
    "word", ["", "hex:", "hex:0", "hex:0g", "hex:0000", "hex:00??", "hex:????", "x" * (MOST_AROUND + 1)]
)
def test_what_is_no_pattern_or_everywhere_is_refused(word: str) -> None:
    with pytest.raises(InvalidArgumentError, match="not all zeros"):
        Pattern.of(word)


def test_words_are_texts_unless_they_say_otherwise() -> None:
    assert Pattern.of("text:hex:00").anchor == b"hex:00"
    assert Pattern.of("é").anchor == "é".encode()
    assert Pattern.of("hex: 4d 5A ?? 00") == ("hex: 4d 5A ?? 00", 4, 0, b"MZ", ((3, 0),))


def test_pieces_are_as_small_for_a_large_machine(tmp_path: Path) -> None:
    """A machine with 64 GiB of RAM, three pages of which hold something."""
    with image(tmp_path / "a", 64 << 30, {at << 30: b"x" * 4096 for at in (1, 33, 63)}) as machine:
        seen = [(piece.address, piece.size, len(piece.buffer)) for piece in pieces(machine, 16)]
        assert ram(machine) == [(0, 64 << 30)]
    assert {size for _, _, size in seen} == {PIECE + 16}
    assert len(seen) < 10


def test_hashes_are_told_once_each(tmp_path: Path) -> None:
    with image(tmp_path / "a", MIB, {0: b"a" * 8192, 0x10000: b"b" * 4096}) as machine:
        first = hashes(machine)
    with image(tmp_path / "b", MIB, {0x20000: b"a" * 4096}) as machine:
        second = hashes(machine)
    assert (first["pages"], first["distinct"], second["pages"], second["distinct"]) == (3, 2, 1, 1)
    assert isinstance(first["hashes"], list)
    assert isinstance(second["hashes"], list)
    assert set(second["hashes"]) < set(first["hashes"])
