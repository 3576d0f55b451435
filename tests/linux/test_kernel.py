# SPDX-License-Identifier: Apache-2.0
"""A kernel is found in the memory of a guest whatever the order of its tables, and what is none is refused."""

from __future__ import annotations

import pytest
from linux.made import BANNER, IMAGE, MOVED, NOTE_AT, RELEASE, Made
from linux.packing import LAYOUTS

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.fake import FakeDriver
from libmicrovmi_py.errors import NotSupportedError
from libmicrovmi_py.linux.kernel import Kernel

layouts = pytest.mark.parametrize("layout", LAYOUTS)


def rows_of(kernel: Kernel) -> list[tuple[int, str]]:
    return [(address, kind + name) for address, kind, name in kernel.symbols]


@layouts
@pytest.mark.parametrize("named", [True, False], ids=["named", "by shape"])
@pytest.mark.parametrize("all_symbols", [True, False], ids=["all", "functions"])
def test_symbols_are_found_in_every_layout(layout: str, named: bool, all_symbols: bool) -> None:
    made = Made(layout, named=named, all_symbols=all_symbols)
    kernel = Kernel.find(made.machine())
    assert rows_of(kernel) == made.rows
    assert (kernel.release, kernel.kaslr_offset, kernel.phys_base) == (RELEASE, MOVED, made.phys_base)
    assert kernel.banner == BANNER.decode().strip()
    assert kernel.build_id == "ab" * 20
    assert kernel.architecture == "x86_64"
    assert kernel.vmcoreinfo is not None
    assert kernel.vmcoreinfo.startswith(b"OSRELEASE=")


@layouts
@pytest.mark.parametrize("all_symbols", [True, False], ids=["all", "functions"])
def test_without_a_note_the_registers_lead_to_the_kernel(layout: str, all_symbols: bool) -> None:
    made = Made(layout, note=False, all_symbols=all_symbols)
    kernel = Kernel.find(made.machine_in_kernel())
    assert rows_of(kernel) == made.rows
    assert (kernel.release, kernel.note, kernel.vmcoreinfo) == (RELEASE, None, None)
    assert kernel.kaslr_offset == MOVED
    assert kernel.space.tables.base == made.tables.base
    if all_symbols:
        assert kernel.phys_base == made.phys_base


def test_symbols_are_asked_for_by_name_and_by_address() -> None:
    kernel = Kernel.find(Made().machine())
    symbols = kernel.symbols
    assert symbols.address("function_7") == IMAGE + 7 * 64
    assert symbols.at(IMAGE + 7 * 64 + 63) == ("function_7", 63)
    assert symbols.at(IMAGE) == ("_stext", 0)
    assert symbols.all("twice") == [symbols.address("twice"), symbols.address("twice") + 64]
    assert symbols.get("fixed_percpu_data") == 0
    assert symbols.get("nothing") is None
    assert "nothing" not in symbols
    assert len(symbols) == len(list(symbols))
    for address in (0, 0x1000, IMAGE - 1, symbols.address("_end"), 1 << 64):
        with pytest.raises(KeyError):
            symbols.at(address)
    with pytest.raises(KeyError):
        symbols.address("nothing")


def test_a_note_of_a_kernel_that_is_gone_is_passed_over() -> None:
    """Even if its page tables are left, and good ones."""
    made = Made()
    base, left = made.tables.base, made.tables.base - 0x1000
    made.memory[left:base] = made.memory[base : base + 0x1000]
    note = made.memory[NOTE_AT : NOTE_AT + 0x1000]
    gone = note.replace(f"phys_base)={made.phys_base}".encode(), f"phys_base)={made.phys_base - 0x1000}".encode())
    made.memory[NOTE_AT - 0x1000 : NOTE_AT] = gone
    kernel = Kernel.find(made.machine())
    assert kernel.note is not None
    assert kernel.note.address == NOTE_AT


def test_types_and_the_first_task_are_found_if_only_functions_are_named() -> None:
    made = Made(all_symbols=False)
    kernel = Kernel.find(made.machine())
    assert kernel.types is not None
    assert kernel.init_task == made.tasks[0]


def test_without_types_one_line_says_why() -> None:
    kernel = Kernel.find(Made(types=False).machine())
    assert (kernel.btf, kernel.types) == (None, None)
    assert kernel.why_no_types == f"the kernel {RELEASE} was built without BTF (CONFIG_DEBUG_INFO_BTF)"
    with pytest.raises(NotSupportedError, match="built without BTF"):
        kernel.known_types()


def test_memory_without_a_kernel_is_refused_in_one_line() -> None:
    machine = Microvmi.from_driver(FakeDriver({0: bytearray(0x100000)}))
    with pytest.raises(
        NotSupportedError, match="no Linux kernel was found in the machine's memory: no VMCOREINFO"
    ) as raised:
        Kernel.find(machine)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (b"SYMBOL(swapper_pg_dir)", b"SYMBOL(swapper_pg_dix)", "does not tell where its page tables are"),
        (b"phys_base)=-", b"phys_base)=-9", "where none can be"),
        (b"phys_base)=-", b"phys_base)=+", "is no longer there"),
    ],
)
def test_a_note_that_is_wrong_says_what_is(before: bytes, after: bytes, says: str) -> None:
    made = Made()
    page = made.memory[NOTE_AT : NOTE_AT + 0x1000]
    made.memory[NOTE_AT : NOTE_AT + 0x1000] = page.replace(before, after).ljust(0x1000, b"\0")[:0x1000]
    with pytest.raises(NotSupportedError, match=says):
        Kernel.find(made.machine())
