# SPDX-License-Identifier: Apache-2.0
"""A real guest, mounted: files are what QEMU and the guest say, and programs read them without an option."""

from __future__ import annotations

import dataclasses
import json
import mmap
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from needs import missing, with_extra
from tools.mount.mounts import Mounted, check_fuse, is_mounted, mount, until

from libmicrovmi_py import Microvmi
from libmicrovmi_py.export.layout import joined
from libmicrovmi_py.linux.kernel import Kernel

from . import initramfs, oracle, packages
from .conftest import NewGuest
from .guest import VCPUS, Boot, Config, Guest

KASLR = Config("private", 512, line="")
BEGIN, END = "maps of init", "end of the maps"
SETUP = f"(echo {BEGIN}; cat /proc/1/maps; echo {END}) > /dev/console\n"


@pytest.fixture(scope="module")
def kaslr(boot: Boot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A guest whose kernel is where it likes, in memory that nobody shares, which says what its first process maps."""
    initrd = tmp_path_factory.mktemp("kaslr") / "initramfs.cpio"
    initramfs.build(packages.busybox(), initrd, {initramfs.SETUP: SETUP.encode()})
    with Guest(KASLR, dataclasses.replace(boot, initrd=initrd)) as guest:
        yield guest


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty one, in memory if there is such: what programs write into it is as large as the guest."""
    with tempfile.TemporaryDirectory(dir=oracle.SCRATCH, prefix="microvmi-live-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def paused(kaslr: Guest) -> Iterator[Mounted]:
    """The guest, paused and mounted."""
    with tempfile.TemporaryDirectory() as name, mount(Path(name), "--pause", kaslr.name) as mounted:
        yield mounted


@pytest.fixture(scope="module")
def snapshot(kaslr: Guest, paused: Mounted) -> Iterator[Mounted]:
    """A snapshot of it, after the tests that need it paused."""
    paused.process.terminate()
    paused.ended()
    with tempfile.TemporaryDirectory() as name, mount(Path(name), "--snapshot", kaslr.name) as mounted:
        yield mounted


def program(name: str, package: str) -> str:
    """The path of a program that the test runs."""
    if (path := shutil.which(name)) is None:
        missing(f"{name} is not installed; to enable: apt-get install {package}")
    return path


def output(*command: object) -> str:
    """What it prints. It has to work."""
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, errors="replace", timeout=120, check=False
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout + done.stderr


def test_memory_is_what_pmemsave_writes(kaslr: Guest, paused: Mounted) -> None:
    assert (paused.folder / "memory").stat().st_size == KASLR.size
    found = [item for item in oracle.memory_map(kaslr.monitor) if item.end <= KASLR.size]
    assert found
    for item in found:
        assert oracle.first_difference(kaslr.monitor, item, paused.folder / "memory") is None


def test_registers_are_what_qemu_says(kaslr: Guest, paused: Mounted) -> None:
    for vcpu, expected in enumerate(oracle.registers(kaslr.monitor)):
        told = json.loads((paused.folder / f"vcpus/{vcpu}.json").read_text())["registers"]
        assert {name: int(told[name], 16) for name in ("rip", "rsp", "cr3")} == {
            name: expected[name] for name in ("rip", "rsp", "cr3")
        }


def test_the_core_opens_as_the_machine(kaslr: Guest, paused: Mounted) -> None:
    """With the same addresses, and the registers that QEMU's own dumps have."""
    uri = f"vmi://dump/?path={quote(str(paused.folder))}/memory.elf&mapped=no"
    with Microvmi.open(uri) as dump, Microvmi.open(kaslr.uri) as vm:
        assert dump.max_addr == vm.max_addr == KASLR.size
        assert joined(dump.memory_map(), 1 << 64) == joined(vm.memory_map(), 1 << 64)
        for saved, state in zip(dump.read_states(), vm.read_states(), strict=True):
            assert len(saved) == 59
            assert dict(saved).items() <= dict(state).items()


def addresses_of_banner(guest: Guest) -> tuple[int, int]:
    """Where the kernel's name is: by the addresses it is linked for, and in its mapping of all memory."""
    with Microvmi.open(guest.uri) as vm:
        kernel = Kernel.find(vm)
        text = kernel.symbols.address("linux_banner")
        physical = kernel.space.translate(text).physical_address
        assert physical is not None
        return text, physical + kernel.pointer(kernel.symbols.address("page_offset_base"))


def test_gdb_reads_the_core(kaslr: Guest, paused: Mounted) -> None:
    """vCPUs are threads, and both addresses that the kernel has its memory at lead to it."""
    registers = oracle.registers(kaslr.monitor)
    gdb = program("gdb", "gdb")
    text, linear = addresses_of_banner(kaslr)
    asked = [word for line in ("info threads", f"x/s {text:#x}", f"x/s {linear:#x}") for word in ("-ex", line)]
    said = output(gdb, "-q", "-nx", "-batch", "-c", paused.folder / "memory.elf", *asked)
    for vcpu, state in enumerate(registers, 1):
        assert re.search(rf"LWP {vcpu}\b.*{state['rip']:#018x}", said), said
    assert len(re.findall(r"LWP \d+ ", said)) >= VCPUS
    assert len(re.findall(r'^0x\w+:\s"Linux version ', said, re.MULTILINE)) == 2, said


DRGN = """
banner = {text:#x}
print(prog.read(banner, 14), prog.read({linear:#x}, 14), prog.flags)
try:
    prog.read(0x1000, 1)
except Exception as err:
    print(type(err).__name__)
"""


def test_drgn_reads_the_core(kaslr: Guest, paused: Mounted, folder: Path) -> None:
    """It knows it for a Linux kernel, and that nothing is mapped where nothing is."""
    env = with_extra("drgn")
    text, linear = addresses_of_banner(kaslr)
    (folder / "script.py").write_text(DRGN.format(text=text, linear=linear))
    command = [sys.executable, "-m", "drgn", "-q", "-c", str(paused.folder / "memory.elf"), str(folder / "script.py")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done
    assert done.stdout == "b'Linux version ' b'Linux version ' ProgramFlags.IS_LINUX_KERNEL\nFaultError\n"


def test_makedumpfile_makes_a_dump_of_it(kaslr: Guest, paused: Mounted, folder: Path) -> None:
    made = folder / "made"
    output(program("makedumpfile", "makedumpfile"), "-l", "-d", "31", paused.folder / "memory.elf", made)
    assert made.stat().st_size < KASLR.size // 4
    with Microvmi.open(str(made)) as dump, Microvmi.open(kaslr.uri) as vm:
        for item in list(dump.memory_map())[:50]:
            assert dump.read_physical(item.start, 4096) == vm.read_physical(item.start, 4096)


def test_a_process_has_mapped_what_the_guest_says(kaslr: Guest, paused: Mounted) -> None:
    """The heap grows as it likes; device and inode are not told."""
    lines = kaslr.console.replace("\r", "").split(f"{BEGIN}\n")[1].split(END)[0].splitlines()
    expected = [re.sub(r"^(\S+ \S+ \S+) \S+ +\S+ *", r"\1 ", line).rstrip() for line in lines]
    told = (paused.folder / "processes/1/maps").read_text().splitlines()
    assert [line for line in told if "heap" not in line] == [line for line in expected if "heap" not in line]
    assert (paused.folder / "processes/1/name").read_text() == "init\n"


def test_the_memory_of_a_process_is_there(paused: Mounted) -> None:
    first = (paused.folder / "processes/1/maps").read_text().split("-")[0]
    with (paused.folder / "processes/1/memory").open("rb", buffering=0) as file:
        file.seek(int(first, 16))
        assert file.read(4) == b"\x7fELF"
        file.seek(0x1000)
        with pytest.raises(OSError, match="Input/output error"):
            file.read(4)
    assert not (paused.folder / "processes/2/memory").exists()  # a thread of the kernel


def jiffies_at(guest: Guest) -> int:
    """The physical address of the kernel's count of its ticks."""
    with Microvmi.open(guest.uri) as vm:
        kernel = Kernel.find(vm)
        address = kernel.space.translate(kernel.symbols.address("jiffies_64")).physical_address
    assert address is not None
    return address


def test_a_guest_that_runs_is_never_stale(kaslr: Guest, snapshot: Mounted, folder: Path) -> None:
    address = jiffies_at(kaslr)
    with mount(folder, "--live", kaslr.name) as mounted:
        assert kaslr.monitor.status() == "running"
        with (mounted.folder / "memory").open("rb", buffering=0) as file:
            seen = [os.pread(file.fileno(), 8, address)]
            until(lambda: os.pread(file.fileno(), 8, address) != seen[0], "the kernel does not count")
        with (mounted.folder / "memory").open("rb") as file, pytest.raises(OSError, match="No such device"):
            mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ)


def test_a_snapshot_stays_as_it_was(kaslr: Guest, snapshot: Mounted) -> None:
    assert kaslr.monitor.status() == "running"
    address = jiffies_at(kaslr)
    with (snapshot.folder / "memory").open("rb", buffering=0) as file:
        first = os.pread(file.fileno(), 8, address)
        time.sleep(0.3)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(file.fileno(), 8, address) == first
    names = {(item / "name").read_text() for item in (snapshot.folder / "processes").iterdir()}
    assert {"init\n", "kthreadd\n"} <= names


def test_strings_finds_the_kernel(kaslr: Guest, snapshot: Mounted) -> None:
    command = [program("strings", "binutils"), "-n", "40", str(snapshot.folder / "memory")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as process:
        assert process.stdout is not None
        assert any(kaslr.banner.split(" # ")[0] in line for line in process.stdout)
        process.kill()


@pytest.mark.parametrize("view", ["--live", "--snapshot"])
def test_the_end_of_the_machine_unmounts(new_guest: NewGuest, folder: Path, view: str) -> None:
    guest = new_guest()
    with mount(folder, view, guest.name) as mounted:
        guest.kill()
        assert mounted.ended() == 0
        assert "the machine has ended" in mounted.said


def test_a_snapshot_that_is_kept_outlives_the_machine(new_guest: NewGuest, folder: Path) -> None:
    guest = new_guest()
    with mount(folder, "--snapshot", "--keep", guest.name) as mounted:
        guest.kill()
        time.sleep(0.5)
        assert is_mounted(mounted.folder)
        assert (mounted.folder / "memory").stat().st_size == 64 << 20
        mounted.process.terminate()


def test_a_paused_guest_runs_again_after_it_was_unmounted(new_guest: NewGuest, folder: Path) -> None:
    check_fuse()
    guest = new_guest()
    guest.monitor.execute("cont")
    with mount(folder, "--pause", guest.name) as mounted:
        assert guest.monitor.status() == "paused"
        subprocess.run(["fusermount3", "-u", mounted.folder], check=True)
        until(lambda: guest.monitor.status() == "running", "it does not run")
