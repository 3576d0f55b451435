# SPDX-License-Identifier: Apache-2.0
"""Reads at the edges of a guest's memory, and memory as a file."""

from __future__ import annotations

import io
import os

import pytest

from libmicrovmi_py import Microvmi

from . import oracle
from .capi import Machine
from .guest import MIB, Guest
from .marks import on_every_guest, on_every_kind_of_ram, on_one_guest

PAGE = 4096
NOT_MAPPED = 6
VGA_HOLE = 0xA0000
"""Registers of the video card, no memory, from here to 0xc0000."""


@on_every_kind_of_ram
def test_read_around_a_hole_gives_the_prefix(paused: Guest, vm: Machine) -> None:
    read = vm.read(VGA_HOLE - 2 * PAGE - 16, 16 * MIB)
    assert (read.ok, len(read.content), read.rest_untouched, read.code) == (False, 2 * PAGE + 16, True, NOT_MAPPED)
    assert read.content == oracle.physical(paused.monitor, VGA_HOLE - 2 * PAGE - 16, 2 * PAGE + 16)


@on_every_guest
def test_read_across_the_end_of_low_memory_gives_the_prefix(paused: Guest, vm: Machine) -> None:
    (low,) = [
        item for item in oracle.memory_map(paused.monitor) if item.kind == "ram" and 16 * MIB < item.end < 1 << 32
    ]
    read = vm.read(low.end - MIB, 16 * MIB)
    assert (read.ok, len(read.content), read.rest_untouched, read.code) == (False, MIB, True, NOT_MAPPED)
    assert vm.read(low.end, PAGE) == (False, b"", True, NOT_MAPPED)


@on_every_kind_of_ram
def test_padded_read_has_zeros_where_no_memory_is(paused: Guest, vm: Machine) -> None:
    start, size = VGA_HOLE - PAGE, 0xC0000 - VGA_HOLE + 2 * PAGE
    before, after = (oracle.physical(paused.monitor, address, PAGE) for address in (start, 0xC0000))
    assert any(after), "the video BIOS lies there"
    assert vm.read(start, size, padded=True).content == before + bytes(0xC0000 - VGA_HOLE) + after
    end = vm.max_address()
    last = vm.read(end - PAGE, PAGE).content
    assert vm.read(end - PAGE, 3 * PAGE, padded=True) == (True, last + bytes(2 * PAGE), True, 0)


@on_one_guest
@pytest.mark.parametrize("distance", [0, 1, PAGE])
def test_nothing_is_read_past_the_end(guest: Guest, vm: Machine, distance: int) -> None:
    assert vm.read(vm.max_address() + distance, PAGE) == (False, b"", True, NOT_MAPPED)


@on_one_guest
@pytest.mark.parametrize("address", [1 << 63, (1 << 64) - 1, (1 << 64) - PAGE, 0xFFFFFFFF80000000])
@pytest.mark.parametrize("size", [1, PAGE, 16 * MIB])
def test_nothing_is_read_at_the_ends_of_64_bits(guest: Guest, vm: Machine, address: int, size: int) -> None:
    assert vm.read(address, size) == (False, b"", True, NOT_MAPPED)
    assert vm.read(address, size, padded=True) == (True, bytes(size), True, 0)


@on_one_guest
def test_a_read_across_the_end_gives_what_is_before_it(guest: Guest, vm: Machine) -> None:
    read = vm.read(vm.max_address() - 100, PAGE)
    assert (read.ok, len(read.content), read.rest_untouched, read.code) == (False, 100, True, NOT_MAPPED)


@on_every_kind_of_ram
def test_reads_of_every_size_and_alignment_fit_together(paused: Guest, vm: Machine) -> None:
    start = 0x1000000
    whole = vm.read(start, MIB).content
    assert any(whole), "the kernel lies there"
    for offset, size in [(0, 1), (1, 7), (PAGE - 1, 2), (PAGE - 3, PAGE + 6), (12345, 65536), (0, MIB - 1)]:
        assert vm.read(start + offset, size).content == whole[offset : offset + size]


@on_every_kind_of_ram
def test_memory_is_a_file_in_python(paused: Guest, vm: Machine) -> None:
    with Microvmi(paused.name) as machine:
        machine.memory.seek(VGA_HOLE - 16)
        assert machine.memory.read(64) == vm.read(VGA_HOLE - 16, 16).content
        machine.padded_memory.seek(VGA_HOLE - 16)
        assert machine.padded_memory.read(64) == vm.read(VGA_HOLE - 16, 64, padded=True).content
        assert machine.padded_memory.seek(0, os.SEEK_END) == paused.config.size
        assert machine.padded_memory.read(1) == b""
        buffered = io.BufferedReader(machine.memory)
        buffered.seek(0x1000000)
        assert buffered.read(3 * PAGE + 5) == vm.read(0x1000000, 3 * PAGE + 5).content
        buffered.detach()
