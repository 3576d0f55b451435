# SPDX-License-Identifier: Apache-2.0
"""Exactly the pages that a guest wrote: between two snapshots, a snapshot or a dump and the machine."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from differences import Run as Differing
from differences import joined

from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import VmGoneError

from .tiny import GO, Tiny, tiny, wait_for

RunProgram = Callable[..., "subprocess.CompletedProcess[str]"]
FRAME, MIB, GIB = 0x1000, 1 << 20, 1 << 30
DONE = GO + 4
"""Guest-physical address of a byte that is 1 when all pages are written."""

PAGES = (0x7000, 0x8000, 0x20000, 0x9F000, 0x100000, 0x10F000, 0x110000, 0x2345000, 0x5FFF000)
"""What the guest writes, a byte each: first and last pages of RAM, of chunks, and others."""


def writes(pages: Sequence[int]) -> bytes:
    """For :func:`tiny.tiny`: go to 32-bit mode, add 1 to a byte of each page and then to ``DONE``, stand still."""
    start, head, body = 0xF0000 + 11, 24, 32  # behind the wait of the firmware
    table = start + head + body
    real = b"\xfa\x2e\x0f\x01\x16" + struct.pack("<H", (table + 24) & 0xFFFF)  # cli; lgdt cs:[gdtr]
    real += b"\x0f\x20\xc0\x0c\x01\x0f\x22\xc0"  # mov eax, cr0; or al, 1; mov cr0, eax
    real += b"\x66\xea" + struct.pack("<IH", start + head, 8)  # jmp 8:flat
    flat = b"\xb0\x10\x8e\xd8" + b"\xbe" + struct.pack("<I", table + 30)  # mov al, 16; mov ds, eax; mov esi, list
    flat += b"\xad\x85\xc0\x74\x04\xfe\x00\xeb\xf7"  # next: lodsd; test eax, eax; je done; inc byte [eax]; jmp next
    flat += b"\xfe\x05" + struct.pack("<I", DONE) + b"\xf4\xeb\xfd"  # done: inc byte [DONE]; hlt; jmp
    gdt = struct.pack("<3Q", 0, 0x00CF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF) + struct.pack("<HI", 23, table)
    return real.ljust(head, b"\x90") + flat.ljust(body, b"\x90") + gdt + struct.pack(f"<{len(pages) + 1}I", *pages, 0)


@contextmanager
def writer(folder: Path, mib: int, *, shared: bool) -> Iterator[Tiny]:
    """A guest that waits, and then writes."""
    memory = ("-object", f"memory-backend-memfd,id=m,size={mib}M,share=on", "-machine", "memory-backend=m")
    with tiny(folder, writes(PAGES), ("-m", f"{mib}M", *(memory if shared else ())), debugger=False) as guest:
        yield guest


def let_it_write(vm: Microvmi) -> list[Differing]:
    """What it writes, and what is written here: page 0."""
    vm.write_physical(GO, b"\1")
    wait_for(lambda: vm.read_physical(DONE, 1) == b"\1", "a guest that wrote")
    return joined((page, FRAME, 1) for page in (0, *PAGES))


def found(older: Microvmi, newer: Microvmi, start: int = 0) -> list[Differing]:
    return [(item.start, item.size, int(item.kind)) for item in older.diff(newer, start)]


@pytest.mark.parametrize("mib", [512, 5120])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "private"])
def test_exactly_the_pages_that_the_guest_wrote(tmp_path: Path, mib: int, shared: bool) -> None:
    with writer(tmp_path, mib, shared=shared) as guest, Microvmi.open(guest.uri) as vm, vm.snapshot() as before:
        assert found(before, vm) == found(vm, before) == []
        expected = let_it_write(vm)
        if mib == 5120:
            vm.write_physical(5 * GIB + 5 * MIB, b"\1")  # the last page is at 6 GiB, the hole below 4 GiB
            expected.append((5 * GIB + 5 * MIB, FRAME, 1))
        assert found(before, vm) == found(vm, before) == expected
        with vm.snapshot() as after:
            assert found(before, after) == found(after, before) == expected
            assert found(before, after, 0x100FFF) == joined(run for run in expected if run[0] >= 0x100000)
            assert found(after, vm) == []


def test_the_program_compares_a_dump_of_qemu_with_the_machine(tmp_path: Path, run: RunProgram) -> None:
    with writer(tmp_path, 128, shared=False) as guest:
        dump = tmp_path / "before.elf"
        guest.monitor.execute("dump-guest-memory", paging=False, protocol=f"file:{dump}")
        same = run("diff", dump, guest.uri)
        assert (same.returncode, same.stdout, same.stderr) == (0, "", "0 pages differ\n")
        with Microvmi.open(guest.uri) as vm:
            expected = let_it_write(vm)
        lines = [f"{start:#018x} {size:#x} ram" for start, size, _ in expected]
        differs = run("diff", dump, guest.uri)
        assert (differs.returncode, differs.stdout.splitlines()) == (1, lines)
        assert guest.status() == "running"


def test_a_machine_that_ended_is_an_error_and_a_picture_of_it_is_none(tmp_path: Path) -> None:
    with writer(tmp_path, 128, shared=False) as guest, Microvmi.open(guest.uri) as vm, vm.snapshot() as before:
        guest.process.kill()
        guest.process.wait()
        with pytest.raises(VmGoneError):
            list(before.diff(vm))
        assert found(before, before) == []
