# SPDX-License-Identifier: Apache-2.0
"""A dump made by the C program holds what QEMU's own ``pmemsave`` saves."""

from __future__ import annotations

from . import initramfs, oracle
from .capi import Machine
from .conftest import RunProgram
from .guest import Guest
from .marks import on_every_guest, on_one_guest


@on_every_guest
def test_dump_equals_pmemsave_over_every_range(paused: Guest, run: RunProgram) -> None:
    dump = paused.directory / "dump"
    try:
        ended = run("mem-dump", "-q", "-o", dump, paused.name)
        assert (ended.returncode, ended.stderr) == (0, "")
        ranges = [item for item in oracle.memory_map(paused.monitor) if item.kind != "device"]
        end = max(item.end for item in ranges if item.kind == "ram")
        compared = [item for item in ranges if item.start < end]
        assert sum(item.size for item in compared if item.kind == "ram") > paused.config.size - (1 << 20)
        assert [oracle.first_difference(paused.monitor, item, dump) for item in compared] == [None] * len(compared)
    finally:
        dump.unlink(missing_ok=True)


@on_one_guest
def test_the_guests_own_data_is_found(paused: Guest, vm: Machine) -> None:
    banner = initramfs.BANNER.format(name=paused.name).encode() + b"\n"
    content = vm.read(0x100000, paused.config.size - 0x100000).content
    assert content.count(banner) > initramfs.PATTERN_SIZE // len(banner) * 0.95
