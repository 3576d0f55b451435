# SPDX-License-Identifier: Apache-2.0
"""``microvmi_dump``: what is in the file, what it tells, what an error leaves, and who may end it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from ctypes import byref, c_char_p, sizeof
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from libmicrovmi_py import Microvmi
from libmicrovmi_py.export.dump import Moment
from libmicrovmi_py.export.writing import FORMATS

INVALID_ARGUMENT, INVALID_CONTEXT, PERMISSION, TIMEOUT, IO, CANCELLED = 1, 2, 7, 9, 10, 15
FIRST_OPTIONS, FIRST_INFO = 32, 24
LIVE, SNAPSHOT, REPLACE, RESUME = 1, 2, 4, 8
SIZE = 4 << 20
MACHINE = f"vmi://fake/?size={SIZE:#x}&holes=0x4000-0x6000&vcpus=2"

Open = Callable[[str], int]
Dump = Callable[..., Any]


@pytest.fixture
def dump(lib: Any, stubs: ModuleType) -> Dump:
    """Writes a file with these members of the options; what was told, or the number of the error."""

    def write(context: int | None, path: object, **members: Any) -> Any:
        kind = dict(stubs.microvmi_dump_options._fields_)["progress"]
        if "progress" in members:
            members["progress"] = kind(members["progress"])
        options = stubs.microvmi_dump_options(sizeof(stubs.microvmi_dump_options), **members)
        info = stubs.microvmi_dump_info(sizeof(stubs.microvmi_dump_info))
        if lib.microvmi_dump(context, os.fsencode(str(path)), byref(options), byref(info)):
            return info
        return lib.microvmi_last_error_code()

    return write


def memory_of(uri: str) -> list[tuple[int, bytes]]:
    with Microvmi.open(uri) as machine:
        return [(item.start, machine.read_physical(item.start, item.size)) for item in machine.memory_map()]


def test_the_numbers_are_those_of_the_header(stubs: ModuleType) -> None:
    names = [name.upper().replace("-", "_") for name in FORMATS]
    assert [getattr(stubs, f"MICROVMI_DUMP_{name}") for name in names] == list(range(1, len(names) + 1))
    for moment in Moment:
        assert getattr(stubs, f"MICROVMI_DUMP_OF_{moment.name}") == moment


@pytest.mark.parametrize("number", range(2, len(FORMATS) + 1), ids=FORMATS[1:])
def test_each_format_has_the_memory(dump: Dump, opened: Open, number: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    info = dump(opened(MACHINE), path, format=number)
    assert (info.moment, info.file_bytes, info.data_bytes > SIZE // 2) == (2, path.stat().st_size, True)
    assert memory_of(str(path)) == memory_of(MACHINE)
    assert os.listdir(tmp_path) == ["file"]


def test_the_name_tells_the_format_and_defaults_do(lib: Any, opened: Open, tmp_path: Path) -> None:
    context = opened(MACHINE)
    for name, begins in (("a.kdump", b"KDUMP   "), ("a.lime", b"EMiL"), ("a.core", b"\x7fELF")):
        assert lib.microvmi_dump(context, os.fsencode(tmp_path / name), None, None), lib.microvmi_last_error()
        assert (tmp_path / name).read_bytes().startswith(begins)
    assert lib.microvmi_dump(context, os.fsencode(tmp_path / "a"), None, None), lib.microvmi_last_error()
    assert (tmp_path / "a").stat().st_size == SIZE


def test_it_tells_of_when_it_is(dump: Dump, opened: Open, tmp_path: Path) -> None:
    context = opened(MACHINE)
    assert dump(context, tmp_path / "live", flags=LIVE).moment == Moment.LIVE
    assert dump(context, tmp_path / "snapshot", flags=SNAPSHOT).moment == Moment.SNAPSHOT
    assert dump(opened(str(tmp_path / "live")), tmp_path / "static").moment == Moment.STATIC


def test_arguments_that_make_no_sense_write_nothing(lib: Any, stubs: ModuleType, opened: Open, tmp_path: Path) -> None:
    context, path = opened(MACHINE), os.fsencode(tmp_path / "file")
    for options in (
        stubs.microvmi_dump_options(FIRST_OPTIONS - 1),
        stubs.microvmi_dump_options(FIRST_OPTIONS, flags=16),
        stubs.microvmi_dump_options(FIRST_OPTIONS, flags=LIVE | SNAPSHOT),
        stubs.microvmi_dump_options(FIRST_OPTIONS, format=len(FORMATS) + 1),
    ):
        assert not lib.microvmi_dump(context, path, byref(options), None)
        assert (lib.microvmi_last_error_code(), b"options: " in lib.microvmi_last_error()) == (INVALID_ARGUMENT, True)
    info = stubs.microvmi_dump_info(FIRST_INFO - 1, moment=77)
    assert not lib.microvmi_dump(context, path, None, byref(info))
    assert (lib.microvmi_last_error_code(), info.moment) == (INVALID_ARGUMENT, 77)
    assert not lib.microvmi_dump(context, c_char_p(), None, None)
    assert lib.microvmi_last_error_code() == INVALID_ARGUMENT
    assert not lib.microvmi_dump(None, path, None, None)
    assert lib.microvmi_last_error_code() == INVALID_CONTEXT
    assert os.listdir(tmp_path) == []


def test_callers_who_know_more_are_told_how_much_was_filled(
    lib: Any, stubs: ModuleType, opened: Open, tmp_path: Path
) -> None:
    room = (stubs.microvmi_dump_info * 2)()
    room[0].struct_size, room[1].struct_size = FIRST_INFO + 8, 77
    assert lib.microvmi_dump(opened(MACHINE), os.fsencode(tmp_path / "file"), None, room), lib.microvmi_last_error()
    assert (room[0].struct_size, room[0].file_bytes, room[1].struct_size) == (FIRST_INFO, SIZE, 77)


def test_a_file_that_is_there_is_replaced_with_the_flag_alone(
    dump: Dump, lib: Any, opened: Open, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    assert dump(opened(MACHINE), path) == INVALID_ARGUMENT
    assert lib.microvmi_last_error().decode() == f"{path} is there already: MICROVMI_DUMP_REPLACE replaces it"
    assert path.read_text() == "mine"
    assert dump(opened(MACHINE), path, flags=REPLACE).file_bytes == SIZE


def test_what_cannot_be_written_is_one_line(dump: Dump, lib: Any, opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "no" / "file"
    assert dump(opened(MACHINE), path) == IO
    assert lib.microvmi_last_error().decode() == f"{path}.partial: No such file or directory"
    assert dump(opened(MACHINE), "/dev/full", flags=LIVE) == IO
    assert lib.microvmi_last_error().decode() == "/dev/full: No space left on device"


@pytest.mark.parametrize("form", [1, 4])
def test_the_caller_is_told_how_far_it_is_and_may_end_it(
    dump: Dump, lib: Any, opened: Open, form: int, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []

    def progress(opaque: object, done: int, total: int) -> bool:
        told.append((done, total))
        return True

    context = opened(MACHINE)
    assert dump(context, tmp_path / "whole", format=form, progress=progress).moment == Moment.SNAPSHOT
    assert told[-1][0] == told[-1][1] > SIZE // 2
    assert dump(context, tmp_path / "cut", format=form, progress=lambda *_: False) == CANCELLED
    assert dump(context, tmp_path / "live", format=form, flags=LIVE, progress=lambda *_: False) == CANCELLED
    assert os.listdir(tmp_path) == ["whole"], "a fake that cannot be told from another has nothing to go on with"


def watched(folder: Path, **more: object) -> str:
    words = "".join(f"&{name}={value}" for name, value in more.items())
    return f"vmi://watched/?size={SIZE:#x}&path={folder / 'journal'}{words}"


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drivers of the tests of the command."""
    monkeypatch.setenv("MICROVMI_PLUGIN_PATH", str(Path(__file__).parents[1] / "command" / "plugins"))


@pytest.mark.usefixtures("plugins")
def test_what_an_error_left_of_a_live_machine_is_gone_on_with(
    dump: Dump, lib: Any, opened: Open, tmp_path: Path
) -> None:
    path = tmp_path / "file"

    def half(opaque: object, done: int, total: int) -> bool:
        return done < SIZE // 2

    context = opened(watched(tmp_path, identity="one", slow="read", delay=0.002))
    assert dump(context, path, flags=LIVE, progress=half) == CANCELLED
    assert (path.exists(), Path(f"{path}.partial").exists()) == (False, True)
    assert dump(context, path, flags=LIVE) == INVALID_ARGUMENT
    assert b"MICROVMI_DUMP_RESUME goes on with it" in lib.microvmi_last_error()
    told: list[int] = []

    def rest(opaque: object, done: int, total: int) -> bool:
        told.append(done)
        return True

    assert dump(context, path, flags=LIVE | RESUME, progress=rest).file_bytes == SIZE
    assert told[0] >= SIZE // 4
    assert path.read_bytes() == b"".join(data for _, data in memory_of(f"vmi://fake/?size={SIZE:#x}"))


@pytest.mark.usefixtures("plugins")
def test_its_time_is_limited(dump: Dump, opened: Open, tmp_path: Path) -> None:
    context = opened(watched(tmp_path, slow="read", delay=0.02))
    assert dump(context, tmp_path / "file", flags=LIVE, timeout_ms=100) == TIMEOUT
    assert not (tmp_path / "file").exists()


@pytest.mark.usefixtures("plugins")
def test_a_context_that_is_destroyed_meanwhile_ends_it(dump: Dump, lib: Any, opened: Open, tmp_path: Path) -> None:
    context = lib.microvmi_open(watched(tmp_path, slow="read", delay=0.02).encode(), None)
    assert context, lib.microvmi_last_error()
    begun, codes = threading.Event(), []

    def progress(opaque: object, done: int, total: int) -> bool:
        begun.set()
        return True

    thread = threading.Thread(
        target=lambda: codes.append(dump(context, tmp_path / "file", flags=LIVE, progress=progress))
    )
    thread.start()
    assert begun.wait(30)
    before = time.monotonic()
    lib.microvmi_destroy(context)
    thread.join(30)
    assert time.monotonic() - before < 10, "all of it would take 20 s"
    assert codes[0] in (INVALID_CONTEXT, CANCELLED)
    assert not (tmp_path / "file").exists()
