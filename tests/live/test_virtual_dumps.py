# SPDX-License-Identifier: Apache-2.0
"""The same virtual addresses in dumps of a stopped guest, whose kernel lies anywhere, by the base of its tables."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from libmicrovmi_py import Microvmi

from . import oracle
from .conftest import OpenMachine, RunProgram
from .guest import Boot, Config, Guest, banner_of
from .spaces import X86_4_LEVELS, Space

MIB = 256
FORMS = ("elf", "kdump-zlib", "raw")


@pytest.fixture(scope="module")
def stopped(boot: Boot) -> Iterator[Guest]:
    with Guest(Config(mib=MIB, line=""), boot) as guest:
        guest.monitor.execute("stop")
        yield guest


@pytest.fixture(scope="module", params=FORMS)
def dump(stopped: Guest, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A dump that QEMU wrote, into memory if the host has some to spare."""
    with tempfile.TemporaryDirectory(dir=oracle.SCRATCH, prefix="microvmi-live-") as name:
        path = Path(name) / "dump"
        if request.param == "raw":
            stopped.monitor.execute("pmemsave", val=0, size=MIB << 20, filename=str(path))
        else:
            stopped.monitor.execute("dump-guest-memory", paging=False, protocol=f"file:{path}", format=request.param)
        yield path


@pytest.fixture
def base(stopped: Guest, open_machine: OpenMachine) -> int:
    """CR3 of the guest."""
    base = open_machine(stopped.uri).registers(0)["cr3"]
    assert isinstance(base, int)
    return base


def test_every_page_that_qemu_listed_is_found_in_the_dump(
    stopped: Guest, dump: Path, base: int, open_machine: OpenMachine
) -> None:
    space = Space(open_machine(str(dump)), paging=X86_4_LEVELS, base=base)
    for page in oracle.pages(stopped.monitor):
        told = space.translate(page.virtual)
        assert (told.ok, told.physical) == (True, page.physical)


def test_everything_mapped_is_the_same_as_in_the_machine(
    stopped: Guest, dump: Path, base: int, open_machine: OpenMachine
) -> None:
    live = Space(open_machine(stopped.uri), paging=X86_4_LEVELS, base=base)
    assert list(Space(open_machine(str(dump)), paging=X86_4_LEVELS, base=base).mapped()) == list(live.mapped())
    with Microvmi.open(str(dump)) as machine:
        assert [item.start for item in machine.address_space(base).mapped()] == [item.start for item in live.mapped()]


def test_the_banner_is_at_its_address_in_the_dump(stopped: Guest, dump: Path, base: int, run: RunProgram) -> None:
    live = run("read-virtual", stopped.name).stdout
    address, banner = live.rstrip("\n").split(" ", 1)
    assert banner_of(banner) == stopped.banner
    ended = run("read-virtual", "-b", hex(base), dump, hex(int(address, 16) - 0x2000))
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", live)


def test_a_dump_with_registers_needs_no_base(
    stopped: Guest, dump: Path, request: pytest.FixtureRequest, run: RunProgram
) -> None:
    ended = run("read-virtual", dump)
    if request.node.callspec.params["dump"] == "raw":
        assert ended.returncode == 1
        assert "(-b BASE names page tables)" in ended.stderr
    else:
        assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", run("read-virtual", stopped.name).stdout)
