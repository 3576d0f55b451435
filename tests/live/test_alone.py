# SPDX-License-Identifier: Apache-2.0
"""Guests that are read by their process alone: the bytes that the monitor knows, and refusals where nobody can know."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from needs import missing

from libmicrovmi_py import (
    DriverUnavailableError,
    InvalidArgumentError,
    Microvmi,
    NotSupportedError,
    VmGoneError,
)
from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.model import MemoryKind

from . import initramfs, oracle
from .firmware import firmware, new_name
from .guest import BOOT_SECONDS, CONFIGS, MIB, QEMU, QEMU_ARM64, Boot, Guest, banner_of
from .monitor import Monitor
from .oracle import Range

HOLE = Range(0xA0000, 0x60000, "")
"""Video memory, firmware, and what lies under them: the guest arranges it, by the process alone it does not exist."""

LIMIT = 20.0

on_guests_of_both_sizes = pytest.mark.parametrize(
    "booted", [config for config in CONFIGS if config.ram in ("private", "memfd")], indirect=True, ids=str
)


def ram_of(machine: Microvmi) -> list[Range]:
    return [Range(item.start, item.size, "ram") for item in machine.memory_map()]


def by_the_monitor(monitor: Monitor) -> list[Range]:
    """The main memory that the monitor tells, without what lies in the hole."""
    return [part for item in oracle.memory_map(monitor) if item.kind == "ram" for part in _outside(item)]


def _outside(item: Range) -> Iterator[Range]:
    for start, end in ((item.start, min(item.end, HOLE.start)), (max(item.start, HOLE.end), item.end)):
        if start < end:
            yield Range(start, end - start, "ram")


def same_bytes(machine: Microvmi, monitor: Monitor, item: Range) -> bool:
    """Whether the machine reads there what ``pmemsave`` saves of the standing guest, a piece at a time."""
    with tempfile.TemporaryDirectory(dir=oracle.SCRATCH) as work, monitor.held() as connection:
        saved = Path(work) / "saved"
        for start in range(item.start, item.end, oracle.PIECE):
            size = min(oracle.PIECE, item.end - start)
            connection.execute("pmemsave", val=start, size=size, filename=str(saved))
            if saved.read_bytes() != machine.read_physical(start, size):
                return False
    return True


@on_guests_of_both_sizes
def test_memory_by_the_process_is_what_the_monitor_saves(paused: Guest) -> None:
    with Microvmi(paused.name, driver="qemu", monitor="no") as machine:
        ranges = ram_of(machine)
        assert ranges == by_the_monitor(paused.monitor)
        assert machine.max_addr == ranges[-1].end
        assert all(same_bytes(machine, paused.monitor, item) for item in ranges)
        with Microvmi(paused.name, driver="qemu") as other:
            assert other.max_addr == machine.max_addr
            known = {(item.start, item.end) for item in other.memory_map() if item.kind is MemoryKind.RAM}
            assert all(any(start <= item.start and item.end <= end for start, end in known) for item in ranges)


@pytest.mark.parametrize(
    ("machine", "mib"), [("pc", 3583), ("pc", 3584), ("pc", 6144), ("q35", 2815), ("q35", 2816), ("q35", 6144)]
)
def test_memory_is_split_where_qemu_splits_it(tmp_path: Path, machine: str, mib: int) -> None:
    path = tmp_path / "qmp"
    options = ("-S", "-machine", machine, "-qmp", f"unix:{path},server=on,wait=off")
    with firmware(tmp_path, *options, mib=mib) as guest, Microvmi(guest.name, driver="qemu", monitor="no") as vm:
        monitor = Monitor(path)
        assert ram_of(vm) == by_the_monitor(monitor)
        for number, address in enumerate(edge for item in ram_of(vm) for edge in (item.start, item.end - 8)):
            vm.write_physical(address, number.to_bytes(8, "little"))
            assert oracle.physical(monitor, address, 8) == number.to_bytes(8, "little")


def test_memory_of_an_aarch64_board_is_where_qemu_has_it(tmp_path: Path) -> None:
    if shutil.which(QEMU_ARM64) is None:
        missing(f"no AArch64 guest: {QEMU_ARM64} is not installed: apt-get install qemu-system-arm")
    path = tmp_path / "qmp"
    options = ("-S", "-machine", "virt", "-cpu", "cortex-a57", "-qmp", f"unix:{path},server=on,wait=off")
    with (
        firmware(tmp_path, *options, mib=5120, program=QEMU_ARM64) as guest,
        Microvmi(guest.name, driver="qemu", monitor="no") as vm,
        Microvmi(guest.name, driver="qemu") as other,
    ):
        (item,) = ram_of(vm)
        assert (item.start, item.size) == (1 << 30, 5120 * MIB)
        assert (vm.driver.architecture, vm.max_addr) == (other.driver.architecture, other.max_addr)
        for address in (item.start, item.end - 8):
            vm.write_physical(address, b"in place")
            assert oracle.physical(Monitor(path), address, 8) == b"in place"


# -------------------------------------------------------------------------------------------- guests without a monitor


@contextlib.contextmanager
def without_a_monitor(folder: Path, boot: Boot, *options: str) -> Iterator[tuple[str, subprocess.Popen[bytes], str]]:
    """A guest that nobody can ask anything, once it is up: its name, its process and what its console says."""
    name, console = new_name("lone"), folder / "console"
    command = [QEMU, "-name", name, "-accel", "tcg", "-display", "none", "-net", "none", "-monitor", "none"]
    command += ["-serial", f"file:{console}", "-kernel", str(boot.kernel), "-initrd", str(boot.initrd)]
    command += ["-append", f"console=ttyS0 quiet panic=-1 nokaslr live_name={name} ", *options]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + BOOT_SECONDS[1]
        while not console.exists() or initramfs.READY not in console.read_text(errors="replace"):
            assert process.poll() is None
            assert time.monotonic() < deadline, "no sign of the guest's user space"
            time.sleep(0.05)
        yield name, process, console.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "options",
    [
        ("-m", "512"),
        ("-machine", "q35,memory-backend=ram", "-m", "512", "-object", "memory-backend-memfd,id=ram,size=512M"),
    ],
    ids=["private-pc", "memfd-q35"],
)
def test_a_guest_without_a_monitor_opens_by_name_and_by_process(
    tmp_path: Path, boot: Boot, options: Sequence[str]
) -> None:
    with without_a_monitor(tmp_path, boot, *options) as (name, process, console):
        for text in (name, process.pid):
            with Microvmi(str(text)) as machine:
                assert machine.driver.name == "qemu"
                kernel = machine.read_physical(0x1000000, 48 * MIB)
                start = kernel.index(b"Linux version ")
                assert banner_of(kernel[start : kernel.index(b"\n", start)].decode()) == banner_of(console)
                assert not machine.abilities.can & (Ability.PAUSE | Ability.VCPU_COUNT | Ability.READ_REGISTERS)
                with pytest.raises(NotSupportedError, match="start QEMU with -qmp unix:"):
                    machine.pause()
        with Microvmi(name, driver="qemu") as machine:
            process.kill()
            process.wait()
            with pytest.raises(VmGoneError):
                machine.memory_map()


def why_refused(name: str) -> str:
    """What a machine that runs is refused with, once it is there."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        with contextlib.suppress(InvalidArgumentError):  # not started yet
            with pytest.raises(DriverUnavailableError) as caught:
                Microvmi(name, driver="qemu")
            return str(caught.value)
        time.sleep(0.02)
    pytest.fail(f"no sign of {name}")


DIMM = ("-object", "memory-backend-ram,id=d,size=64M", "-device", "pc-dimm,memdev=d")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("-m", "2G", "-machine", "pc,max-ram-below-4g=1G"), "max-ram-below-4g"),
        (("-m", "2G", "-machine", "q35,max-ram-below-4g=1G"), "max-ram-below-4g"),
        (("-m", "128M", "-object", "memory-backend-ram,id=n,size=128M", "-numa", "node,memdev=n"), "NUMA"),
        (
            (
                "-m",
                "128M,slots=2,maxmem=1G",
                "-object",
                "memory-backend-ram,id=d,size=64M",
                "-device",
                "pc-dimm,memdev=d",
            ),
            "plugged in",
        ),
        (("-m", "128M", "-machine", "microvm"), "machine type microvm"),
        (("-m", "128M", "-machine", "isapc"), "machine type isapc"),
        (("-m", "128M", "-incoming", "defer"), "-incoming"),
        (("-m", "128M", "-device", "virtio-rng,id=r", "-set", "device.r.max-bytes=1024"), "-set"),
        (("-m", "128M", "-object", "memory-backend-ram,id=twin,size=128M"), "same size"),
    ],
    ids=["pc-below", "q35-below", "numa", "dimm", "microvm", "isapc", "incoming", "set", "twin"],
)
def test_a_layout_that_is_not_certain_is_refused(tmp_path: Path, options: Sequence[str], reason: str) -> None:
    with firmware(tmp_path, "-S", *options, mib=0, human=False) as guest:
        told = why_refused(guest.name)
        assert guest.process is not None
        assert guest.process.poll() is None, (tmp_path / "log").read_text()
        assert reason in told
        assert "start QEMU with -qmp unix:" in told


def test_a_memory_backend_has_the_size_of_the_machine_where_nothing_else_says_it(tmp_path: Path) -> None:
    backend = ("-machine", "q35,memory-backend=mem", "-object", "memory-backend-ram,id=mem,size=256M")
    options = ("-S", "-nodefaults", *backend, "-device", "VGA,vgamem_mb=128")
    with (
        firmware(tmp_path, *options, mib=0) as guest,
        Microvmi(guest.name, driver="qemu", monitor="no") as machine,
    ):
        assert machine.max_addr == 256 * MIB
        machine.write_physical(0x100000, b"\x5a")
        assert "0x5a" in guest.human("xp /1bx 0x100000")


def test_a_file_of_options_is_not_certain(tmp_path: Path) -> None:
    config = tmp_path / "options"
    config.write_text('[memory]\n  size = "128M"\n')
    with firmware(tmp_path, "-S", "-readconfig", str(config), mib=0, human=False) as guest:
        assert "-readconfig" in why_refused(guest.name)


def test_a_monitor_that_is_there_stays_the_way(tmp_path: Path) -> None:
    with firmware(tmp_path, "-S") as guest:
        with pytest.raises(DriverUnavailableError, match=r"serves only the human monitor .*monitor=no"):
            Microvmi(guest.name, driver="qemu")
        with Microvmi(guest.name, driver="qemu", monitor="no") as machine:
            assert machine.max_addr == 64 * MIB
            with pytest.raises(NotSupportedError, match="opened with monitor=no"):
                machine.pause()
