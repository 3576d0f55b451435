# SPDX-License-Identifier: Apache-2.0
"""kdump files that are written of a real Linux guest: what is in them, and programs of others that read them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from needs import missing, with_extra

from libmicrovmi_py import Microvmi
from libmicrovmi_py.export.dump import Moment, Wanted, dump
from libmicrovmi_py.export.layout import joined
from libmicrovmi_py.export.writing import FORMATS
from libmicrovmi_py.model import U64_MAX

from . import oracle
from .guest import Boot, Config, Guest

PAGE = 4096
KDUMP = [name for name in FORMATS if name.startswith("kdump-")]

DRGN = """
import sys
import drgn

saved, wrong = open(sys.argv[2], "rb"), 0
program = drgn.Program()
program.set_core_dump(sys.argv[1])
for address in range(0, int(sys.argv[3]), 4096):
    page = saved.read(4096)
    if not 0xA0000 <= address < 0x100000:
        wrong += program.read(address, 4096, physical=True) != page
print(wrong, program.flags & drgn.ProgramFlags.IS_LINUX_KERNEL == drgn.ProgramFlags.IS_LINUX_KERNEL)
"""


@pytest.fixture(scope="module")
def paused(boot: Boot) -> Iterator[Guest]:
    """A guest whose kernel is where it likes, paused by its user."""
    with Guest(Config(mib=128, line=""), boot) as guest:
        guest.monitor.execute("stop")
        yield guest


@pytest.fixture(scope="module")
def folder(paused: Guest) -> Iterator[Path]:
    """Its memory as QEMU saves it (``raw``), and as it is written, by the formats' names."""
    with tempfile.TemporaryDirectory(dir=oracle.SCRATCH, prefix="microvmi-live-") as name:
        paused.monitor.execute("pmemsave", val=0, size=paused.config.size, filename=f"{name}/raw")
        with Microvmi.open(paused.uri) as vm:
            for form in KDUMP:
                assert dump(vm, f"{name}/{form}", Wanted(form)).moment is Moment.SNAPSHOT
        yield Path(name)


def registers(vm: Microvmi) -> list[dict[str, int]]:
    return [dict(state) for state in vm.read_states()]


@pytest.mark.parametrize("form", KDUMP)
def test_it_has_the_guests_memory_and_registers(paused: Guest, folder: Path, form: str) -> None:
    """Page by page what QEMU saved, but for the window of the graphics card and firmware: those are the machine's."""
    saved = (folder / "raw").read_bytes()
    with Microvmi.open(paused.uri) as vm, Microvmi.open(str(folder / form)) as made:
        assert joined(made.memory_map(), U64_MAX) == joined(vm.memory_map(), U64_MAX)
        for item in vm.memory_map():
            for start in range(item.start, item.end, PAGE):
                page = made.read_physical(start, PAGE)
                if start + PAGE <= len(saved) and not 0xA0000 <= start < 0x100000:
                    assert page == saved[start : start + PAGE], f"{start:#x}"
                else:
                    assert page == vm.read_physical(start, PAGE), f"{start:#x}"
        for found, state in zip(registers(made), registers(vm), strict=True):
            assert found == {name: state[name] for name in found}
            assert {"cr3", "rip", "gs_base", "tr_base"} <= found.keys()
    assert (folder / form).stat().st_size < len(saved) * 2 // 3


@pytest.mark.parametrize("form", KDUMP)
def test_drgn_reads_it(paused: Guest, folder: Path, form: str) -> None:
    """By the libkdumpfile that it brings."""
    command = [sys.executable, "-c", DRGN, str(folder / form), str(folder / "raw"), str(paused.config.size)]
    done = subprocess.run(command, env=with_extra("drgn"), capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("0 True\n", "")


def makedumpfile(*words: object) -> None:
    if shutil.which("makedumpfile") is None:
        missing("no makedumpfile: apt-get install makedumpfile")
    command = ["makedumpfile", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done


def test_makedumpfile_reads_it(folder: Path) -> None:
    """It finds the kernel's log by VMCOREINFO, and the page tables."""
    makedumpfile("--dump-dmesg", folder / "kdump-zlib", folder / "log")
    assert "Linux version " in (folder / "log").read_text().splitlines()[0]


def test_a_pipe_gets_what_makedumpfile_makes_the_same_file_of(paused: Guest, folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "libmicrovmi_py.command", "dump", paused.uri, "-", "--format", "kdump-zlib"]
    flat = folder / "flat"
    with flat.open("wb") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    with flat.open("rb") as file:
        subprocess.run(
            ["makedumpfile", "-R", folder / "made"], stdin=file, capture_output=True, timeout=120, check=True
        )
    assert (folder / "made").read_bytes() == (folder / "kdump-zlib").read_bytes()
    with Microvmi.open(str(flat)) as one, Microvmi.open(str(folder / "made")) as other:
        assert registers(one) == registers(other)
        assert list(one.diff(other)) == []
