# SPDX-License-Identifier: Apache-2.0
"""Arguments of calls that ``microvmi-caller`` makes: what ctypes takes, and no more memory than was given."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from capi.test_elsewhere import called_elsewhere

HEADER = Path(__file__).resolve().parents[2] / "include" / "libmicrovmi.h"
WAYS = ("near", "far")


@pytest.fixture(scope="module")
def ways(stubs: ModuleType, library_path: Path) -> dict[str, Any]:
    """The library in this process, and in another one."""
    return {"near": stubs.load(library_path), "far": called_elsewhere(stubs, library_path)}


@pytest.fixture(scope="module")
def contexts(ways: dict[str, Any]) -> dict[str, int]:
    return {way: lib.microvmi_open(b"vmi://fake/?size=0x100000&vcpus=2", None) for way, lib in ways.items()}


@pytest.mark.parametrize("way", WAYS)
def test_behind_a_pointer_is_as_much_as_the_call_says(ways: dict[str, Any], contexts: dict[str, int], way: str) -> None:
    buffer = (ctypes.c_uint8 * (65536 + 16))()
    pointer = ctypes.cast(buffer, ctypes.POINTER(ctypes.c_uint8))
    assert ways[way].microvmi_read_physical(contexts[way], 0x5000, pointer, 65536, None)
    assert [buffer[place << 12] for place in range(16)] == list(range(5, 21))
    assert bytes(buffer)[-24:] == b"\x14" + bytes(23)


@pytest.mark.parametrize("way", WAYS)
def test_behind_a_pointer_are_as_many_structs_as_the_call_says(
    ways: dict[str, Any], contexts: dict[str, int], stubs: Any, way: str
) -> None:
    pages = [(ctypes.c_uint8 * 8)() for _ in range(3)]
    requests = (stubs.microvmi_read_request * 3)()
    for number, (request, page) in enumerate(zip(requests, pages, strict=True), 1):
        request.physical_address, request.size = number << 12, 8
        request.buffer = ctypes.cast(page, ctypes.POINTER(ctypes.c_uint8))
    first = ctypes.cast(requests, ctypes.POINTER(stubs.microvmi_read_request))
    assert ways[way].microvmi_read_physical_batch(contexts[way], first, 3)
    assert [page[0] for page in pages] == [1, 2, 3]


def test_an_array_that_is_shorter_than_the_call_says_is_refused(
    ways: dict[str, Any], contexts: dict[str, int], stubs: Any
) -> None:
    far, vm = ways["far"], contexts["far"]
    with pytest.raises(
        ValueError, match=r"microvmi_read_physical\(\): argument 3 has 16 bytes, and the call may use 64:"
    ):
        far.microvmi_read_physical(vm, 0, (ctypes.c_uint8 * 16)(), 64, None)
    with pytest.raises(ValueError, match=r"microvmi_get_max_physical_addr\(\): argument 2 has 0 bytes"):
        far.microvmi_get_max_physical_addr(vm, (ctypes.c_uint64 * 0)())
    with pytest.raises(ValueError, match=r"microvmi_get_memory_map\(\): argument 2"):
        far.microvmi_get_memory_map(vm, (stubs.microvmi_memory_range * 2)(), 3, ctypes.c_size_t())
    page = (ctypes.c_uint8 * 24)(*[0xEE] * 24)
    assert far.microvmi_read_physical(vm, 0x5000, page, 16, None)
    assert bytes(page) == b"\5\0\0\0\0\0\0\0\5\0\0\0\0\0\0\0" + b"\xee" * 8


def test_a_struct_that_says_to_be_larger_than_it_is_is_refused(
    ways: dict[str, Any], contexts: dict[str, int], stubs: Any
) -> None:
    abilities = stubs.microvmi_abilities(struct_size=4096)
    with pytest.raises(ValueError, match="struct_size is 4096 of a struct of"):
        ways["far"].microvmi_get_abilities(contexts["far"], abilities)


def test_every_size_in_the_header_is_that_of_the_pointer_before_it(stubs: Any) -> None:
    lists = re.findall(r"^\w[\w *]*?\b(\w+)\(((?:[^()]|\n)*)\);", HEADER.read_text(), re.MULTILINE)
    sizes = [
        (name, place - 1)
        for name, arguments in lists
        for place, argument in enumerate(arguments.split(","))
        if re.fullmatch(r"\s*size_t \w+", argument)
    ]
    counted = {(name, place) for name, places in stubs._COUNTED.items() for place in places}
    assert set(sizes) - counted == {("microvmi_map_physical", 1)}, "which is refused"
    assert counted <= set(sizes)
    assert len(counted) > 10


WRONG: list[tuple[str, Callable[[Any], list[Any]]]] = [
    ("microvmi_read_physical", lambda _: [0, ctypes.byref((ctypes.c_uint8 * 64)(), 16), 16, None]),
    ("microvmi_read_physical", lambda _: [0, bytearray(8), 8, None]),
    ("microvmi_read_physical", lambda _: ["0", None, 8, None]),
    ("microvmi_read_physical", lambda _: [0, None, 8.0, None]),
    ("microvmi_read_physical", lambda _: [0, None, 8, ctypes.byref(ctypes.c_uint32())]),
    ("microvmi_get_abilities", lambda stubs: [stubs.Registers()]),
    ("microvmi_get_abilities", lambda stubs: [ctypes.pointer(stubs.Registers())]),
]


@pytest.mark.parametrize(("name", "arguments"), WRONG)
def test_what_ctypes_refuses_is_refused_in_its_words(
    ways: dict[str, Any], contexts: dict[str, int], stubs: Any, name: str, arguments: Callable[[Any], list[Any]]
) -> None:
    told = []
    for way in WAYS:
        with pytest.raises(ctypes.ArgumentError) as caught:
            getattr(ways[way], name)(contexts[way], *arguments(stubs))
        told.append(str(caught.value))
    assert told[0] == told[1]


@pytest.mark.parametrize("way", WAYS)
def test_an_offset_counts(ways: dict[str, Any], contexts: dict[str, int], way: str) -> None:
    counts, page = (ctypes.c_uint64 * 3)(), (ctypes.c_uint8 * 64)()
    there = ctypes.byref(ctypes.c_uint8.from_buffer(page), 16)
    count = ctypes.byref(ctypes.c_uint64.from_buffer(counts), 8)
    assert ways[way].microvmi_read_physical(contexts[way], 0x5000, there, 8, count)
    assert list(counts) == [0, 8, 0]
    assert [place for place, byte in enumerate(page) if byte] == [16]


@pytest.mark.parametrize("way", WAYS)
def test_every_form_of_an_argument_is_taken(ways: dict[str, Any], contexts: dict[str, int], way: str) -> None:
    class Sized:
        _as_parameter_ = 8

    lib, most = ways[way], ctypes.c_uint64()
    assert lib.microvmi_read_physical(contexts[way], 0x5000, (ctypes.c_uint8 * 8)(), Sized(), most)
    assert most.value == 8
    for context in (contexts[way], ctypes.c_void_p(contexts[way])):
        for place in (most, ctypes.byref(most), ctypes.pointer(most), (ctypes.c_uint64 * 1).from_buffer(most)):
            most.value = 0
            assert lib.microvmi_get_max_physical_addr(context, place)
            assert most.value == 0x100000
    name = ctypes.create_string_buffer(b"nowhere://")
    for text in (name.value, name, ctypes.c_char_p(name.value), ctypes.cast(name, ctypes.POINTER(ctypes.c_char))):
        error = ctypes.POINTER(ctypes.c_char)()
        assert lib.microvmi_open(text, ctypes.pointer(error)) is None
        assert ctypes.string_at(error).startswith(b"nowhere://: ")
        lib.rs_cstring_free(error)
    assert lib.microvmi_get_max_physical_addr(contexts[way], ctypes.POINTER(ctypes.c_uint64)()) is False
    assert lib.microvmi_seek(contexts[way], -16, ctypes.c_int(os.SEEK_END), most)
    assert most.value == 0x100000 - 16
