# SPDX-License-Identifier: Apache-2.0
"""``microvmi_get_image_info``: structs of any size, and texts that are too long or no text."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from ctypes import byref, sizeof
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from drivers.dump import builders

from libmicrovmi_py import ImageAccess

INVALID_ARGUMENT, INVALID_CONTEXT = 1, 2
FIRST = 3344
"""Bytes of the struct in its first version."""

Open = Callable[[str], int]


def told(lib: Any, stubs: ModuleType, context: int) -> Any:
    info = stubs.microvmi_image_info(struct_size=sizeof(stubs.microvmi_image_info))
    assert lib.microvmi_get_image_info(context, byref(info)), lib.microvmi_last_error()
    return info


def test_the_numbers_are_those_of_the_header(stubs: ModuleType) -> None:
    for access in ImageAccess:
        assert getattr(stubs, f"MICROVMI_IMAGE_{access.name}") == access


def test_a_struct_that_is_too_small_or_absent_is_refused(
    lib: Any, stubs: ModuleType, opened: Open, tmp_path: Path
) -> None:
    (tmp_path / "image").write_bytes(bytes(4096))
    context = opened(str(tmp_path / "image"))
    for size in (0, FIRST - 1):
        info = stubs.microvmi_image_info(struct_size=size, pages_present=77)
        assert not lib.microvmi_get_image_info(context, byref(info))
        assert (lib.microvmi_last_error_code(), info.pages_present) == (INVALID_ARGUMENT, 77)
        assert b"start from MICROVMI_IMAGE_INFO_INIT" in lib.microvmi_last_error()
    assert not lib.microvmi_get_image_info(context, None)
    assert lib.microvmi_last_error_code() == INVALID_ARGUMENT
    assert not lib.microvmi_get_image_info(None, byref(info))
    assert lib.microvmi_last_error_code() == INVALID_CONTEXT


def test_a_caller_who_knows_more_is_told_how_much_was_filled(
    lib: Any, stubs: ModuleType, opened: Open, tmp_path: Path
) -> None:
    (tmp_path / "image").write_bytes(bytes(4096))
    room = (stubs.microvmi_image_info * 2)()
    room[0].struct_size, room[1].struct_size = FIRST + 8, 77
    assert lib.microvmi_get_image_info(opened(str(tmp_path / "image")), room), lib.microvmi_last_error()
    assert (room[0].struct_size, room[0].pages_present, room[1].struct_size) == (FIRST, 1, 77)


@pytest.mark.parametrize("first", ["a", "ab"])
def test_lists_have_a_line_for_each_and_what_is_too_long_is_cut(
    lib: Any, stubs: ModuleType, opened: Open, tmp_path: Path, first: str
) -> None:
    folder = tmp_path / first  # with one of the two the cut is in the middle of a character
    folder.mkdir()
    for _ in range(6):
        folder = folder / ("\u00e4" * 100)
        folder.mkdir()
    path = folder / "image"
    path.write_bytes(gzip.compress(gzip.compress(bytes(4096))))
    info = told(lib, stubs, opened(str(path)))
    assert (info.format, info.wrappers, info.wrappers_count) == (b"raw", b"gzip\ngzip", 2)
    assert info.files_count == 1
    assert str(path).startswith(info.files.decode())
    assert 1000 < len(info.files) < 1024


def test_words_of_a_file_are_escaped(lib: Any, stubs: ModuleType, opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "vmcore"
    path.write_bytes(builders.kdump({0: bytes(4096)}, machine=b"\x1b[31m\nred"))
    assert told(lib, stubs, opened(str(path))).machine == rb"\x1b[31m\nred"


def test_so_are_names_of_files(lib: Any, stubs: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "a\ttab"
    path.write_bytes(bytes(4096))
    context = lib.microvmi_open(str(path).encode(), None)
    assert context, lib.microvmi_last_error()
    assert told(lib, stubs, context).files.decode() == f"{tmp_path}/a\\ttab"
    lib.microvmi_destroy(context)
