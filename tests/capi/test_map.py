# SPDX-License-Identifier: Apache-2.0
"""Pointers straight into the guest's memory: where there are any, how long they last, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import POINTER, byref, c_uint8, cast, string_at
from pathlib import Path
from typing import Any

import pytest

from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import InvalidArgumentError, NotMappedError, NotSupportedError

INVALID_ARGUMENT, INVALID_CONTEXT, NOT_SUPPORTED, NOT_MAPPED = 1, 2, 5, 6
CONTENT = bytes(index * 7 % 256 for index in range(0x30000))

Open = Callable[[str], int]
Pointer = Any


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "mapped-image.raw"
    path.write_bytes(CONTENT)
    return path


def map_physical(lib: Any, context: int, address: int, size: int) -> Pointer:
    pointer = POINTER(c_uint8)()
    assert lib.microvmi_map_physical(context, address, size, byref(pointer)), lib.microvmi_last_error()
    return pointer


def unmap(lib: Any, pointer: Pointer) -> int:
    """The error code of giving it back."""
    given_back = lib.microvmi_unmap_physical(pointer)
    code = int(lib.microvmi_last_error_code())
    assert given_back == (code == 0)
    return code


def refusal(lib: Any, context: int | None, address: int, size: int) -> int:
    untouched = cast(0x1234, POINTER(c_uint8))
    pointer = cast(0x1234, POINTER(c_uint8))
    assert not lib.microvmi_map_physical(context, address, size, byref(pointer))
    assert bytes(pointer) == bytes(untouched)
    return int(lib.microvmi_last_error_code())


def is_mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize(("address", "size"), [(0, 1), (0, len(CONTENT)), (0x1003, 0x2000), (len(CONTENT) - 1, 1)])
def test_the_pointer_shows_the_memory(lib: Any, opened: Open, image: Path, address: int, size: int) -> None:
    pointer = map_physical(lib, opened(str(image)), address, size)
    assert string_at(pointer, size) == CONTENT[address : address + size]
    assert unmap(lib, pointer) == 0


def test_what_the_guest_writes_is_seen(lib: Any, opened: Open, start_machine: Callable[..., str]) -> None:
    context = opened(start_machine())
    pointer = map_physical(lib, context, 0x2000, 16)
    assert string_at(pointer, 16) == bytes([2]) * 16
    assert lib.microvmi_write_physical(context, 0x2004, (c_uint8 * 4)(*b"seen"), 4)
    assert string_at(pointer, 16) == bytes([2]) * 4 + b"seen" + bytes([2]) * 8
    assert unmap(lib, pointer) == 0


def test_it_lasts_until_it_is_given_back_also_after_destroy(lib: Any, opened: Open, image: Path) -> None:
    context = opened(str(image))
    first, second = map_physical(lib, context, 0x1000, 16), map_physical(lib, context, 0x9000, 16)
    lib.microvmi_destroy(context)
    assert refusal(lib, context, 0x1000, 16) == INVALID_CONTEXT
    assert string_at(first, 16) == CONTENT[0x1000:0x1010]
    assert unmap(lib, first) == 0
    assert is_mapped(image)
    assert string_at(second, 16) == CONTENT[0x9000:0x9010]
    assert unmap(lib, second) == 0
    assert not is_mapped(image)


def test_without_pointers_destroy_unmaps(lib: Any, opened: Open, image: Path) -> None:
    context = opened(str(image))
    assert is_mapped(image)
    assert lib.microvmi_read_physical(context, 0, (c_uint8 * 8)(), 8, None)
    lib.microvmi_destroy(context)
    assert not is_mapped(image)


def test_an_address_that_was_handed_out_twice_is_given_back_twice(lib: Any, opened: Open, image: Path) -> None:
    context = opened(str(image))
    first, second = map_physical(lib, context, 0x1000, 16), map_physical(lib, context, 0x1000, 0x100)
    assert cast(first, POINTER(c_uint8)).contents is not None
    assert string_at(first, 16) == string_at(second, 16)
    lib.microvmi_destroy(context)
    assert unmap(lib, first) == 0
    assert string_at(second, 0x100) == CONTENT[0x1000:0x1100]
    assert unmap(lib, second) == 0
    assert unmap(lib, second) == INVALID_ARGUMENT
    assert not is_mapped(image)


def test_what_was_not_handed_out_cannot_be_given_back(lib: Any, opened: Open, image: Path) -> None:
    pointer = map_physical(lib, opened(str(image)), 0x1000, 16)
    inside = cast(byref(pointer.contents, 1), POINTER(c_uint8))
    for bad in (inside, cast(0x1234, POINTER(c_uint8))):
        assert unmap(lib, bad) == INVALID_ARGUMENT
        assert b"no pointer of microvmi_map_physical()" in lib.microvmi_last_error()
    assert unmap(lib, None) == 0
    assert unmap(lib, pointer) == 0


@pytest.mark.parametrize(
    ("address", "size", "code"),
    [
        (0, 0, INVALID_ARGUMENT),
        (len(CONTENT), 1, NOT_MAPPED),
        (len(CONTENT) - 1, 2, NOT_MAPPED),
        ((1 << 64) - 1, 1, NOT_MAPPED),
        ((1 << 64) - 1, 100, NOT_MAPPED),
        (0, (1 << 64) - 1, NOT_MAPPED),
    ],
)
def test_what_is_not_there_is_refused(lib: Any, opened: Open, image: Path, address: int, size: int, code: int) -> None:
    assert refusal(lib, opened(str(image)), address, size) == code


def test_no_place_for_the_pointer_and_no_context(lib: Any, opened: Open, image: Path) -> None:
    assert not lib.microvmi_map_physical(opened(str(image)), 0, 1, None)
    assert lib.microvmi_last_error_code() == INVALID_ARGUMENT
    assert refusal(lib, None, 0, 1) == INVALID_CONTEXT


def test_rom_is_mapped_and_a_hole_is_not(lib: Any, opened: Open, start_machine: Callable[..., str]) -> None:
    context = opened(start_machine())
    pointer = map_physical(lib, context, 0x70000, 0x10000)
    assert string_at(pointer, 1) == bytes([0x70])
    assert unmap(lib, pointer) == 0
    for address, size in ((0x80000, 1), (0x7FFFF, 2), (0xFFFFF, 2)):
        assert refusal(lib, context, address, size) == NOT_MAPPED


def test_private_memory_and_frames_are_not_supported(lib: Any, opened: Open, start_machine: Callable[..., str]) -> None:
    for uri in (start_machine("-fake", "private"), "vmi://fake/"):
        assert refusal(lib, opened(uri), 0x1000, 16) == NOT_SUPPORTED


def test_python_has_a_view(image: Path) -> None:
    with Microvmi.open(str(image)) as machine:
        view = machine.map_physical(0x1000, 16)
        with pytest.raises(InvalidArgumentError):
            machine.map_physical(0x1000, 0)
        with pytest.raises(NotMappedError):
            machine.map_physical(len(CONTENT), 1)
    assert view.readonly
    assert view == CONTENT[0x1000:0x1010]
    assert is_mapped(image)
    view.release()
    with Microvmi.open("vmi://fake/") as fake, pytest.raises(NotSupportedError):
        fake.map_physical(0, 1)


def test_the_last_view_unmaps(image: Path) -> None:
    machine = Microvmi.open(str(image))
    view = machine.map_physical(0x1000, 16)
    machine.close()
    del machine
    assert is_mapped(image)
    del view
    assert not is_mapped(image)
