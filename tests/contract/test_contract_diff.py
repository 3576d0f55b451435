# SPDX-License-Identifier: Apache-2.0
"""Differences between the machine of every driver and a dump of it in which some bytes are others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from contract.truth import PAGE, Truth
from differences import Differ, Piece, Run, differing, joined
from drivers.dump.builders import elf


def pieces(spans: dict[int, bytes]) -> list[Piece]:
    return [Piece(*span) for span in spans.items()]


@pytest.fixture
def changed(truth: Truth) -> dict[int, bytes]:
    """The machine's memory with other bytes at the ends of each piece, and a frame more behind the last one."""
    spans = {}
    for start, content in truth.spans:
        other = bytearray(content)
        for place in (0, len(other) // 2, len(other) - 1):
            other[place] ^= 1
        spans[start] = bytes(other)
    last = max(spans)
    spans[last] += bytes(PAGE)
    return spans


@pytest.fixture
def dumps(lib: Any, truth: Truth, changed: dict[int, bytes], tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Contexts of a dump of the machine, and of one of what has changed."""
    contexts = []
    for name, spans in (("same", dict(truth.spans)), ("changed", changed)):
        (tmp_path / name).write_bytes(elf(spans))
        contexts.append(lib.microvmi_open(str(tmp_path / name).encode(), None))
        assert contexts[-1], lib.microvmi_last_error()
    yield contexts[0], contexts[1]
    for context in contexts:
        lib.microvmi_destroy(context)


def found(differ: Differ, truth: Truth) -> list[Run]:
    """By calls that begin where memory does: some drivers try every frame of a hole. Without kinds: a dump has none."""
    frames: set[int] = set()
    for start, end in truth.ranges:
        for rows in differ.calls(start):
            frames.update(frame for start, size, _ in rows for frame in range(start, start + size, PAGE))
            if differ.next.value > end:  # there may be a frame more in what is compared
                break
    return joined((frame, PAGE, 1) for frame in sorted(frames))


def test_what_differs_from_a_dump(
    lib: Any,
    stubs: ModuleType,
    context: int,
    truth: Truth,
    changed: dict[int, bytes],
    dumps: tuple[int, int],
) -> None:
    same, other = dumps
    assert found(Differ(lib, stubs, context, same), truth) == []
    expected = differing(pieces(dict(truth.spans)), pieces(changed))
    assert found(Differ(lib, stubs, context, other), truth) == expected
    assert found(Differ(lib, stubs, other, context, 1), truth) == expected


def test_a_machine_is_the_same_as_itself(lib: Any, stubs: ModuleType, context: int, truth: Truth) -> None:
    assert found(Differ(lib, stubs, context, context), truth) == []
