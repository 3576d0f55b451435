# SPDX-License-Identifier: Apache-2.0
"""Registers of a real QEMU that cannot be migrated, and of one whose devices' state cannot be had."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from needs import missing

from libmicrovmi_py import Microvmi
from libmicrovmi_py.arch.x86.registers import STATE
from libmicrovmi_py.errors import NotSupportedError

from .firmware import need_qemu
from .registers_guest import AARCH64, AARCH64_RAM, set_aarch64_registers
from .tiny import Tiny, tiny, wait_for

WORDS = "Migration is disabled.*ivshmem"
"""What QEMU says of what blocks migrations, its devices being such that could be."""

BLOCKER = (
    *("-object", "memory-backend-ram,size=1M,share=on,id=shared"),
    *("-device", "ivshmem-plain,memdev=shared,master=off"),
)


def without_state(folder: Path) -> tuple[str, ...]:
    """Devices that cannot be migrated, of the second of which QEMU 7.2 and 10 know nothing to save."""
    mtp = ("-device", "qemu-xhci", "-device", f"usb-mtp,rootdir={folder}")
    return (*mtp, "-drive", "if=none,id=disk,driver=null-co", "-device", "nvme,serial=1,drive=disk")


def that_cannot_write(folder: Path, program: str) -> str:
    """A program that starts a QEMU which may not make any file larger than 1 KiB, not even one in memory."""
    found = shutil.which(program)
    if not found:
        missing(f"{program} is not installed")
    script = folder / f"{program}-that-cannot-write"
    script.write_text(f"#!/bin/sh\ntrap '' XFSZ\nulimit -f 1\nexec {shlex.quote(str(found))} \"$@\"\n")
    script.chmod(0o755)
    return str(script)


def blocked(guest: Tiny) -> list[str]:
    return list(guest.monitor.execute("query-migrate").get("blocked-reasons", []))


@pytest.mark.parametrize("stands", [True, False])
def test_what_blocks_migrations_hides_no_register(tmp_path: Path, stands: bool) -> None:
    need_qemu()
    with tiny(tmp_path, options=BLOCKER, debugger=False) as guest, Microvmi.open(guest.uri) as vm:
        assert re.match(WORDS, blocked(guest)[0])
        if stands:
            vm.pause()
        state = vm.read_state(0)
        assert set(state) == set(STATE)
        assert guest.status() == ("paused" if stands else "running")


@pytest.mark.parametrize("stands", [True, False])
def test_devices_that_cannot_be_saved_do_not_end_qemu(tmp_path: Path, stands: bool) -> None:
    need_qemu()
    with tiny(tmp_path, options=without_state(tmp_path), debugger=False) as guest, Microvmi.open(guest.uri) as vm:
        if stands:
            vm.pause()
        state = vm.read_state(0)
        with pytest.raises(KeyError, match=r"lstar is not known: .*might end QEMU .*non-migratable device: "):
            state["lstar"]
        assert state["cr0"] == 0x6000_0010
        assert guest.status() == ("paused" if stands else "running")


def test_a_register_that_is_not_saved_says_why_and_what_blocks_it(tmp_path: Path) -> None:
    need_qemu()
    program = that_cannot_write(tmp_path, "qemu-system-x86_64")
    with tiny(tmp_path, options=BLOCKER, debugger=False, program=program) as guest:
        with Microvmi.open(guest.uri) as vm:
            state = vm.read_state(0)
            with pytest.raises(KeyError, match=f"lstar is not known: QEMU refused .*blocked: {WORDS}"):
                state["lstar"]
            assert state["cr0"] == 0x6000_0010
            assert vm.read_registers(0)
        assert guest.status() == "running"


@pytest.fixture
def aarch64(tmp_path: Path) -> Iterator[Tiny]:
    """An AArch64 guest that has set its registers, whose devices' state cannot be had."""
    program = that_cannot_write(tmp_path, "qemu-system-aarch64")
    image = tmp_path / "image"
    image.write_bytes(set_aarch64_registers())
    options = ("-machine", "virt", "-cpu", "cortex-a57", "-bios", str(image), *BLOCKER)
    with tiny(tmp_path, options=options, debugger=False, program=program) as guest:
        yield guest


def test_an_address_space_by_a_vcpu_says_why_there_is_none(aarch64: Tiny) -> None:
    with Microvmi.open(aarch64.uri) as vm:
        memory = vm.padded_memory

        def is_set() -> bool:
            memory.seek(AARCH64_RAM)
            return bytes(memory.read(1) or b"") == b"\1"

        wait_for(is_set, "registers that are set")
        with pytest.raises(NotSupportedError, match=f"TTBR0_EL1.*name the bases.*QEMU refused .*blocked: {WORDS}"):
            vm.address_space(vcpu=0)
        assert vm.address_space(0x4012_3000, control=AARCH64["tcr_el1"])
    assert aarch64.status() == "running"
