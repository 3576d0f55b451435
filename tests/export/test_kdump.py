# SPDX-License-Identifier: Apache-2.0
"""What is written as a kdump file opens as a dump with the same memory and registers, and keeps its headers' words."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from export.test_formats import KEPT_BY_QEMU, PAGE, Kernel, machine, memory_of, state_of

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.fake import FakeDriver
from libmicrovmi_py.export.kdump import PACKINGS, Kdump
from libmicrovmi_py.export.writing import How as HowWritten
from libmicrovmi_py.export.writing import Written, write, write_stream

SHARED = 100
"""A file of a page that is there so many times takes no more room than that of one, but for descriptors."""


def written(vm: Microvmi, path: Path, packing: str = "zlib") -> Written:
    how = HowWritten(f"kdump-{packing}", instant=True)
    return write(vm, str(path), how, lambda done, total: None, lambda text: None)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("starts", [(0,), (0, 4 * PAGE), (PAGE, 4 * PAGE, 5 * PAGE), (32767 * PAGE, 65536 * PAGE)])
def test_a_dump_has_the_memory_and_nothing_else(packing: str, starts: Sequence[int], tmp_path: Path) -> None:
    """Blocks of the bitmaps end at pages 32768 and 65536."""
    with machine(starts) as vm:
        assert written(vm, tmp_path / "dump", packing).size == (tmp_path / "dump").stat().st_size
        with Microvmi.open(str(tmp_path / "dump")) as dump:
            assert memory_of(dump) == memory_of(vm)
            assert (dump.max_addr, dump.image_info.format) == (vm.max_addr, "kdump")


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_page_that_does_not_become_smaller_stays_as_it_is(packing: str, tmp_path: Path) -> None:
    noise = os.urandom(3 * PAGE)
    with Microvmi.from_driver(FakeDriver({0: bytearray(noise)})) as vm:
        assert written(vm, tmp_path / "dump", packing).size > 3 * PAGE
    with Microvmi.open(str(tmp_path / "dump")) as dump:
        assert dump.read_physical(0, 3 * PAGE) == noise


def test_pages_of_zeros_share_one(tmp_path: Path) -> None:
    content = bytearray(SHARED * PAGE)
    content[50 * PAGE] = 7
    with Microvmi.from_driver(FakeDriver({0: content})) as vm:
        done = written(vm, tmp_path / "dump")
    assert done.data == PAGE
    assert done.size < 5 * PAGE + 24 * SHARED + 200
    with Microvmi.open(str(tmp_path / "dump")) as dump:
        assert dump.read_physical(0, len(content)) == content
        assert [(item.start, item.size) for item in dump.memory_map()] == [(0, len(content))]


def test_memory_that_is_a_hole_is_not_read(tmp_path: Path) -> None:
    """A GiB of nothing takes 24 bytes a page."""
    path = tmp_path / "raw"
    with path.open("wb") as file:
        file.truncate(1 << 30)
        file.seek(512 << 20)
        file.write(b"here")
    with Microvmi.open(str(path)) as vm:
        done = written(vm, tmp_path / "dump")
    assert (done.data, done.size < (24 << 18) + 40 * PAGE) == (PAGE, True)
    with Microvmi.open(str(tmp_path / "dump")) as dump:
        assert (dump.max_addr, dump.read_physical(512 << 20, 4)) == (1 << 30, b"here")


def test_memory_that_ends_in_a_page_is_filled_up_with_zeros(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"x" * (PAGE + 1))
    with Microvmi.open(str(tmp_path / "raw")) as vm:
        written(vm, tmp_path / "dump")
    with Microvmi.open(str(tmp_path / "dump")) as dump:
        assert dump.read_physical(0, 2 * PAGE) == b"x" * (PAGE + 1) + bytes(PAGE - 1)


def test_registers_come_back(tmp_path: Path) -> None:
    states = [state_of(1), state_of(1000)]
    with machine(states=states) as vm:
        written(vm, tmp_path / "dump")
    with Microvmi.open(str(tmp_path / "dump")) as dump:
        for state, found in zip(states, dump.read_states(), strict=True):
            assert dict(found) == {name: state[name] for name in KEPT_BY_QEMU}


def test_the_headers_tell_of_the_guests_kernel() -> None:
    """At the places of diskdump_mod.h; no name is empty, as libkdumpfile takes none of them then."""
    content = bytearray(1 << 20)

    def put(offset: int, piece: object) -> None:
        view = memoryview(piece)  # type: ignore[arg-type]
        content[offset : offset + len(view)] = view

    with machine() as vm:
        kernel = Kernel(vm, vm.address_space(0), {}, phys_base=-0x1000)
        Kdump(vm, "zlib", kernel).write(put, lambda done: None, holes=True)
    names = [bytes(content[place : place + 65]).rstrip(b"\0") for place in range(12, 12 + 6 * 65, 65)]
    assert names == [b"Linux", b"(none)", b"6.1", b"#1 SMP of a day", b"x86_64", b"(none)"]
    status, block, sub, blocks, pages = struct.unpack_from("<5I", content, 424)
    assert (status, block, blocks, pages) == (1, PAGE, 2, 7)
    base, level, split = struct.unpack_from("<Q2i", content, PAGE)
    assert (base, level, split) == ((1 << 64) - 0x1000, 1, 0)
    place, size, note, length = struct.unpack_from("<4Q", content, PAGE + 32)
    assert bytes(content[place : place + size]) == kernel.vmcoreinfo
    assert note + length <= (1 + sub) * PAGE
    assert struct.unpack_from("<3Q", content, PAGE + 80) == (0, 0, 7)


def test_a_pipe_gets_a_flattened_one_of_which_every_byte_is_told(tmp_path: Path) -> None:
    """Between the two pages of memory are whole blocks of the bitmaps that are zeros."""
    with machine((0, 200000 * PAGE)) as vm, (tmp_path / "flat").open("wb") as file:
        write_stream(vm, file.fileno(), "kdump-zlib", lambda done, total: None, lambda text: None)
        with Microvmi.open(str(tmp_path / "flat")) as dump:
            assert memory_of(dump) == memory_of(vm)
