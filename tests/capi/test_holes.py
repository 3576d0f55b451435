# SPDX-License-Identifier: Apache-2.0
"""``microvmi_seek`` to data and to holes, on memory with gaps and on a file with holes."""

from __future__ import annotations

import os
from collections.abc import Callable
from ctypes import byref, c_uint64
from pathlib import Path
from typing import Any

import pytest
from needs import missing

DATA, HOLE = 3, 4
INVALID_ARGUMENT = 1
U63 = (1 << 63) - 1
GAP, AFTER, END = 0x20000, 0x30000, 0x50000

FOUND = [
    (0, DATA, 0),
    (0x1234, DATA, 0x1234),
    (GAP - 1, DATA, GAP - 1),
    (GAP, DATA, AFTER),
    (AFTER - 1, DATA, AFTER),
    (AFTER, DATA, AFTER),
    (END - 1, DATA, END - 1),
    (END, DATA, END),
    (U63, DATA, END),
    (-1, DATA, 0),
    (0, HOLE, GAP),
    (GAP - 1, HOLE, GAP),
    (GAP, HOLE, GAP),
    (GAP + 5, HOLE, GAP + 5),
    (AFTER, HOLE, END),
    (END - 1, HOLE, END),
    (END, HOLE, END),
    (U63, HOLE, END),
    (-U63, HOLE, GAP),
]


@pytest.fixture(params=["fake", "file"])
def context(request: pytest.FixtureRequest, opened: Callable[[str], int], tmp_path: Path) -> int:
    if request.param == "fake":
        return opened(f"vmi://fake/?size={END:#x}&holes={GAP:#x}-{AFTER:#x}")
    path = tmp_path / "sparse.raw"
    with path.open("wb") as file:
        file.write(b"\x01" * GAP)
        file.seek(AFTER)
        file.write(b"\x01" * (END - AFTER))
        file.flush()
        if os.lseek(file.fileno(), 0, os.SEEK_HOLE) != GAP:
            missing("the file system of the temporary directory knows no holes; to enable: set TMPDIR to another")
    return opened(str(path))


@pytest.mark.parametrize("stream", ["", "padded_"])
@pytest.mark.parametrize(("offset", "whence", "expected"), FOUND)
def test_the_cursor_moves_to_what_is_found(
    lib: Any, context: int, stream: str, offset: int, whence: int, expected: int
) -> None:
    seek, tell = getattr(lib, f"microvmi_{stream}seek"), getattr(lib, f"microvmi_{stream}tell")
    position = c_uint64(77)
    assert seek(context, offset, whence, byref(position)), lib.microvmi_last_error()
    assert position.value == expected
    assert tell(context, byref(position))
    assert position.value == expected


@pytest.mark.parametrize("whence", [-1, 5])
def test_another_whence_is_refused(lib: Any, context: int, whence: int) -> None:
    position = c_uint64(77)
    assert lib.microvmi_seek(context, 0x1000, 0, None)
    assert not lib.microvmi_seek(context, 0, whence, byref(position))
    assert lib.microvmi_last_error_code() == INVALID_ARGUMENT
    assert position.value == 77
    assert lib.microvmi_tell(context, byref(position))
    assert position.value == 0x1000
