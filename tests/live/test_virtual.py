# SPDX-License-Identifier: Apache-2.0
"""Virtual addresses of Debian guests whose kernels lie anywhere (KASLR), 4 and 5 levels: the library and QEMU agree."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest

from libmicrovmi_py import Microvmi

from . import oracle
from .capi import Machine
from .conftest import OpenMachine, RunProgram
from .guest import Boot, Config, Guest, banner_of
from .packages import ROOT
from .spaces import (
    KERNEL_EXECUTE,
    KERNEL_WRITE,
    NOT_CANONICAL,
    NOT_MAPPED,
    NOT_PRESENT,
    USER_EXECUTE,
    USER_READ,
    USER_WRITE,
    X86_4_LEVELS,
    X86_5_LEVELS,
    Mapped,
    Space,
    allowed,
)

PAGE = 4096
GUESTS = {
    X86_4_LEVELS: Config(mib=256, line="pti=on"),
    X86_5_LEVELS: Config("memfd", 256, cpu="max,la57=on", line=""),
}
"""By paging; the first has two tables a process."""

LOWER_END = {X86_4_LEVELS: 1 << 47, X86_5_LEVELS: 1 << 56}


@pytest.fixture(scope="module", params=GUESTS, ids=["4 levels", "5 levels"])
def kaslr(boot: Boot, request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A guest, stopped while its first vCPU has the pages of a process, and those of the kernel."""
    with Guest(GUESTS[request.param], boot) as guest:
        deadline = time.monotonic() + 60
        while guest.monitor.status() == "running" or not _of_both(oracle.pages(guest.monitor)):
            assert time.monotonic() < deadline, "the guest never runs a process"
            guest.monitor.execute("cont")
            time.sleep(0.01)
            guest.monitor.execute("stop")
        yield guest


def _of_both(pages: list[oracle.Listed]) -> bool:
    """Where page tables are isolated a process has few pages of the kernel while it runs."""
    return not pages[0].virtual >> 63 and sum(page.virtual >> 63 for page in pages) > 2000


on_4_levels = pytest.mark.parametrize("kaslr", [X86_4_LEVELS], indirect=True, ids=["4 levels"])


@pytest.fixture
def vm(kaslr: Guest, open_machine: OpenMachine) -> Machine:
    return open_machine(kaslr.uri)


@pytest.fixture
def space(vm: Machine) -> Space:
    return Space.of_vcpu(vm)


def pages_of(ranges: Iterator[Mapped]) -> list[tuple[int, int, int]]:
    """Every page by itself: its virtual address, its physical one, its size."""
    return [
        (item.start + offset, item.physical + offset, item.page_size)
        for item in ranges
        for offset in range(0, item.size, item.page_size)
    ]


def may(rights: int, listed: oracle.Listed) -> bool:
    """Whether these rights, of all levels, are within what the last entry of ``listed`` allows."""
    forbidden = 0 if listed.writable else KERNEL_WRITE | USER_WRITE
    forbidden |= 0 if listed.user else USER_READ | USER_WRITE | USER_EXECUTE
    return not rights & (forbidden | (KERNEL_EXECUTE | USER_EXECUTE if listed.no_execute else 0))


def test_every_page_that_qemu_lists_is_found(kaslr: Guest, space: Space) -> None:
    assert space.paging in GUESTS
    assert kaslr.config == GUESTS[space.paging]
    listed = oracle.pages(kaslr.monitor)
    assert len(listed) > 3000
    for page in listed:
        told = space.translate(page.virtual)
        assert (told.ok, told.physical, told.size > PAGE) == (True, page.physical, page.large)
        assert may(told.rights, page)
        assert space.translate(page.virtual + told.size - 1).physical == page.physical + told.size - 1


def test_everything_that_is_mapped_is_what_qemu_lists(kaslr: Guest, space: Space) -> None:
    listed = oracle.pages(kaslr.monitor)
    mapped = pages_of(space.mapped())
    assert [page[:2] for page in mapped] == [page[:2] for page in listed]
    assert [size > PAGE for *_, size in mapped] == [page.large for page in listed]


@on_4_levels  # for 5 QEMU takes a minute
def test_rights_are_those_of_all_levels(kaslr: Guest, space: Space) -> None:
    assert allowed(space.mapped()) == oracle.allowed(kaslr.monitor)


def test_python_says_the_same_as_c(kaslr: Guest, space: Space) -> None:
    with Microvmi.open(kaslr.uri) as machine:
        same = machine.address_space(vcpu=0)
        for page in oracle.pages(kaslr.monitor)[::7]:
            told, expected = same.translate(page.virtual), space.translate(page.virtual)
            assert (told.physical_address, told.page_size, told.rights) == expected[1:4]
        ranges = [Mapped(r.start, r.size, r.physical_address, r.rights, r.page_size) for r in same.mapped()]
        assert ranges == list(space.mapped())
        told = same.translate(LOWER_END[space.paging])
        assert (told.failure, told.physical_address) == (NOT_CANONICAL, None)


def test_the_program_of_the_page_shows_the_kernel(kaslr: Guest, capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "virtual-memory.md").read_text()
    program = page.partition("```python\n")[2].partition("```")[0]
    assert '"debian"' in program
    exec(program.replace("debian", kaslr.name), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Translation(")
    expected = [page for page in oracle.pages(kaslr.monitor) if page.virtual >= 0xFFFFFFFF80000000]
    assert int(lines[1].split()[0], 16) == expected[0].virtual
    assert sum(int(line.split()[1], 16) for line in lines[1:]) >= PAGE * len(expected)


def scattered(listed: list[oracle.Listed], memory: int) -> list[oracle.Listed]:
    """Three small pages of memory, side by side in virtual addresses and nowhere near in physical ones."""
    small = [page for page in listed if not page.large and page.physical < memory]
    for run in zip(small, small[1:], small[2:], strict=False):
        virtual, physical = [page.virtual for page in run], [page.physical for page in run]
        if virtual[2] - virtual[0] == 2 * PAGE and PAGE not in (physical[1] - physical[0], physical[2] - physical[1]):
            return list(run)
    raise AssertionError("no such pages")


def test_a_read_goes_on_across_pages_wherever_they_lie(kaslr: Guest, space: Space) -> None:
    run = scattered(oracle.pages(kaslr.monitor), kaslr.config.size)
    expected = b"".join(oracle.physical(kaslr.monitor, page.physical, PAGE) for page in run)
    for start, size in ((0, 3 * PAGE), (PAGE - 3, PAGE + 6), (PAGE - 1, 2), (1, 3 * PAGE - 2)):
        read = space.read(run[0].virtual + start, size)
        assert (read.ok, read.content) == (True, expected[start : start + size])
    with Microvmi.open(kaslr.uri) as machine:
        same = machine.address_space(vcpu=0)
        same.seek(run[0].virtual + 5)
        assert same.read(2 * PAGE) == expected[5 : 2 * PAGE + 5]


def test_a_read_into_a_hole_gives_the_prefix(kaslr: Guest, space: Space) -> None:
    listed = oracle.pages(kaslr.monitor)
    page = next(
        one
        for one, following in itertools.pairwise(listed)
        if not one.large and one.physical < kaslr.config.size and following.virtual > one.virtual + 2 * PAGE
    )
    expected = oracle.physical(kaslr.monitor, page.physical, PAGE)
    read = space.read(page.virtual + 100, 2 * PAGE)
    assert (read.ok, read.content, read.rest_untouched, read.code) == (False, expected[100:], True, NOT_MAPPED)
    read = space.read(page.virtual + 100, 2 * PAGE, padded=True)
    assert (read.ok, read.content) == (True, expected[100:] + bytes(PAGE + 100))
    told = space.translate(page.virtual + PAGE)
    assert (told.ok, told.failure, told.rights) == (False, NOT_PRESENT, 0)
    assert told.level >= 1


def test_nothing_is_read_where_addresses_end(kaslr: Guest, space: Space) -> None:
    lower = LOWER_END[space.paging]
    for address in (lower, (1 << 64) - lower - 1, 1 << 63):
        assert space.translate(address).failure == NOT_CANONICAL
        assert space.read(address, PAGE) == (False, b"", True, NOT_MAPPED)
    for address, size in ((lower - 8, 16), ((1 << 64) - 8, PAGE), ((1 << 64) - 1, 1)):
        told = space.translate(address)
        assert (told.ok, told.failure) == (False, NOT_PRESENT)
        assert space.read(address, size, padded=True) == (True, bytes(size), True, 0)


def test_a_write_arrives_where_the_address_leads(kaslr: Guest, space: Space) -> None:
    run = scattered(oracle.pages(kaslr.monitor), kaslr.config.size)
    start, size = run[0].virtual + PAGE - 5, PAGE + 10
    before = space.read(start, size).content
    other = bytes(byte ^ 0xFF for byte in before)
    try:
        assert space.write(start, other)
        seen = b"".join(oracle.physical(kaslr.monitor, page.physical, PAGE) for page in run)
        assert seen[PAGE - 5 : 2 * PAGE + 5] == other
    finally:
        assert space.write(start, before)


def first_handler(vm: Machine, space: Space) -> int:
    """Where the kernel is entered by the first interrupt: the gate of 16 bytes has it in three pieces."""
    table = vm.registers(0)["idt"]
    assert isinstance(table, tuple)
    gate = space.read(table[0], 16).content
    return int.from_bytes(gate[:2] + gate[6:12], "little")


def test_the_banner_is_found_by_the_interrupt_table_as_well(
    kaslr: Guest, vm: Machine, space: Space, run: RunProgram
) -> None:
    assert (
        run("read-virtual", kaslr.name, hex(first_handler(vm, space))).stdout == run("read-virtual", kaslr.name).stdout
    )


def test_the_banner_of_the_kernel_is_found_without_symbols(kaslr: Guest, run: RunProgram) -> None:
    ended = run("read-virtual", kaslr.name)
    assert (ended.returncode, ended.stderr) == (0, "")
    address, banner = ended.stdout.rstrip("\n").split(" ", 1)
    assert banner_of(banner) == kaslr.banner
    assert int(address, 16) >> 31 == (1 << 33) - 1
    assert oracle.translated(kaslr.monitor, int(address, 16)) is not None
    printed = run("translate", kaslr.name, address).stdout.splitlines()[1].split()
    assert int(printed[1], 16) == oracle.translated(kaslr.monitor, int(address, 16))
    assert printed[-1] == "r--:---"


@on_4_levels
def test_the_other_tables_of_a_process_have_its_pages(kaslr: Guest, vm: Machine, space: Space) -> None:
    """The kernel's have everything; the user's the way in, and the same pages of the process."""
    twin = space.twin()
    assert twin.base ^ space.base == 1 << 12
    assert twin.twin().base == space.base
    whole, part = (
        {virtual: rest for virtual, *rest in pages_of(one.mapped())}
        for one in ((space, twin) if not space.base & 1 << 12 else (twin, space))
    )
    assert 20 < len(part) < len(whole)
    users = {virtual for virtual in part if not virtual >> 63}
    assert users == {virtual for virtual in whole if not virtual >> 63}
    assert sum(part[virtual] == whole.get(virtual) for virtual in part) > len(part) * 0.8
    entry = first_handler(vm, space)
    assert twin.translate(entry).physical == space.translate(entry).physical
