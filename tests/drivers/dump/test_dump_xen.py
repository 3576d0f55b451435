# SPDX-License-Identifier: Apache-2.0
"""Cores of Xen domains, and domains that Xen saved: written from their descriptions. The Xen lab makes true ones."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from drivers.dump import builders_xen as built
from drivers.dump.builders import GENERAL, PAGE, SEGMENTS, Memory, values
from drivers.dump.test_dump_formats import assert_holds

from libmicrovmi_py import DriverUnavailableError, IoError, Microvmi, NotSupportedError
from libmicrovmi_py.drivers.dump.opening import Opening
from libmicrovmi_py.drivers.dump.pages import words
from libmicrovmi_py.drivers.dump.recognition import recognised
from libmicrovmi_py.drivers.dump.xendomain import INVALID, runs
from libmicrovmi_py.drivers.saved import xenstate
from libmicrovmi_py.model import MemoryKind, MemoryRange

SOURCE = random.Random("xen")
MEMORY = {
    0: SOURCE.randbytes(5 * PAGE),
    0x6000: SOURCE.randbytes(PAGE),
    0x100000: SOURCE.randbytes(37 * PAGE),
    0xFEFF8000: SOURCE.randbytes(3 * PAGE),
    1 << 32: SOURCE.randbytes(2 * PAGE),
}
SPECIAL = 0xFEFF8000
VCPUS = [{**values(vcpu), "kernel_gs_base": 0xFFFF880000000000 + vcpu} for vcpu in range(3)]
RECORDS = {
    vcpu: xenstate.changed(bytes(xenstate.CPU_SIZE), {name: VCPUS[vcpu][name] for name in (*GENERAL, "cr3")})
    for vcpu in (0, 2)
}
STATE = built.record(9, built.saved_vcpus(RECORDS, 4))
CORE = built.core(MEMORY, [built.vcpu(registers) for registers in VCPUS], missing=3)


def pieces(memory: Memory, size: int = 16) -> list[bytes]:
    """PAGE_DATA records of ``size`` pages at most, as Xen has them of 1024."""
    made = []
    for start, content in memory.items():
        for at in range(0, len(content), size * PAGE):
            made.append(built.page_data({start + at: content[at : at + size * PAGE]}))
    return made


def libxc(*more: bytes, **words: int) -> bytes:
    """libxc's stream of MEMORY."""
    return built.libxc(
        built.record(0x10), *pieces(MEMORY), built.record(0x80000001), *more, STATE, built.record(0), **words
    )


SAVES: dict[str, Callable[[], bytes]] = {
    "xl": lambda: built.xl(built.libxl(libxc())),
    "xl without a configuration": lambda: built.xl(built.libxl(libxc()), flags=2, config=b""),
    "libxl": lambda: built.libxl(libxc(), before=built.record(2, b"of an emulator")),
    "libxc": libxc,
    "libxc of version 2": lambda: libxc(version=2),
    "xl with libxc": lambda: built.xl(libxc()),
}


def opened(folder: Path, content: bytes, **options: str) -> Microvmi:
    """A file of that content as a machine."""
    path = folder / "the domain"
    path.write_bytes(content)
    return Microvmi(driver="dump", path=path, **options)


def error(folder: Path, content: bytes, kind: type[Exception], **options: str) -> str:
    """What is said of such a file."""
    with pytest.raises(kind) as told:
        opened(folder, content, **options)
    return str(told.value)


def expected_map() -> tuple[MemoryRange, ...]:
    rows = [(start, len(content)) for start, content in MEMORY.items()]
    return tuple(
        MemoryRange(start, size, MemoryKind.DEVICE if start == SPECIAL else MemoryKind.RAM) for start, size in rows
    )


@pytest.mark.parametrize("name", ["core", *SAVES])
def test_memory_is_what_was_put_in(tmp_path: Path, name: str) -> None:
    with opened(tmp_path, CORE if name == "core" else SAVES[name]()) as machine:
        assert machine.memory_map() == expected_map()
        assert machine.max_addr == (1 << 32) + 2 * PAGE
        assert_holds(machine, MEMORY)


def test_a_special_page_is_no_end_of_memory(tmp_path: Path) -> None:
    memory = {start: content for start, content in MEMORY.items() if start < 1 << 32}
    memory[0xEFFFF000] = bytes(2 * PAGE)
    memory = dict(sorted(memory.items()))
    with opened(tmp_path, built.core(memory)) as machine:
        assert machine.max_addr == 0xF0000000
        assert MemoryRange(0xF0000000, PAGE, MemoryKind.DEVICE) in machine.memory_map()
        assert MemoryRange(0xEFFFF000, PAGE) in machine.memory_map()


def test_a_core_has_the_registers_of_every_vcpu(tmp_path: Path) -> None:
    rings = [{**VCPUS[0], "cs": (0, 0, 0x10)}, {**VCPUS[1], "cs": (0, 0, 0x33)}]
    content = built.core(MEMORY, [built.vcpu(rings[0]), built.vcpu(VCPUS[2], online=False), built.vcpu(rings[1])])
    with opened(tmp_path, content) as machine:
        assert machine.vcpu_count() == 3
        with pytest.raises(NotSupportedError, match="nothing is known of the registers of vCPU 1"):
            machine.read_state(1)
        for vcpu, told in ((0, rings[0]), (2, rings[1])):
            state = machine.read_state(vcpu)
            for name in (*GENERAL, "rip", "rflags", "cr0", "cr2", "cr3", "cr4", "kernel_gs_base"):
                assert state[name] == told[name], name
            assert [state[f"{name}_selector"] for name in SEGMENTS] == [told[name][2] for name in SEGMENTS]
            assert (state["fs_base"], state["gs_base"]) == (told["fs"][0], told["gs"][0])
            assert [state[f"dr{index}"] for index in (0, 1, 2, 3, 6, 7)] == [0xD0, 0xD1, 0xD2, 0xD3, 0xD6, 0xD7]
            assert "efer" not in state


@pytest.mark.parametrize("name", SAVES)
def test_a_saved_domain_has_the_registers_of_every_vcpu(tmp_path: Path, name: str) -> None:
    with opened(tmp_path, SAVES[name]()) as machine:
        assert machine.vcpu_count() == 4
        for vcpu in (0, 2):
            state = machine.read_state(vcpu)
            assert {name: state[name] for name in (*GENERAL, "cr3")} == {
                name: VCPUS[vcpu][name] for name in (*GENERAL, "cr3")
            }
            assert (state["apic_base"], state["cr8"]) == (0xFEE00900, 5)
        for vcpu in (1, 3):
            with pytest.raises(NotSupportedError, match=f"nothing is known of the registers of vCPU {vcpu}"):
                machine.read_state(vcpu)


def test_what_wrote_them_is_known(tmp_path: Path) -> None:
    for content, name, whole in ((CORE, "xencore", False), (SAVES["xl"](), "xensave", True)):
        path = tmp_path / "a domain"
        path.write_bytes(content)
        found = recognised(str(path), None, Opening())
        told = found.read(found.image)
        assert (found.format, told.producer, told.machine, told.whole) == (name, "Xen 4.17", "x86_64", whole)
        found.image.opening.close()


def test_a_core_of_another_processor_has_memory_alone(tmp_path: Path) -> None:
    with opened(tmp_path, built.core({0x40000000: MEMORY[0]}, [bytes(864)], machine=183)) as machine:
        assert_holds(machine, {0x40000000: MEMORY[0]})
        with pytest.raises(NotSupportedError):
            machine.vcpu_count()


def test_the_last_copy_of_a_page_holds(tmp_path: Path) -> None:
    again = {0x102000: SOURCE.randbytes(3 * PAGE), 0x104000: SOURCE.randbytes(PAGE)}
    memory = bytearray(MEMORY[0x100000])
    for start, content in again.items():
        memory[start - 0x100000 : start - 0x100000 + len(content)] = content
    with opened(tmp_path, libxc(*pieces(again))) as machine:
        assert_holds(machine, {**MEMORY, 0x100000: bytes(memory)})


def test_a_frame_that_became_invalid_is_a_hole(tmp_path: Path) -> None:
    back = {0x103000: SOURCE.randbytes(PAGE)}
    gone = built.page_data({}, gone=[0x102, 0x103, 0x200, 0x500000])
    with opened(tmp_path, libxc(gone, *pieces(back))) as machine:
        assert machine.read_physical(0x101000, PAGE) == MEMORY[0x100000][PAGE : 2 * PAGE]
        assert machine.read_physical_into(0x101000, bytearray(2 * PAGE)) == PAGE
        assert machine.read_physical(0x103000, PAGE) == back[0x103000]
        assert machine.read_physical(0x104000, PAGE) == MEMORY[0x100000][4 * PAGE : 5 * PAGE]
        assert [item.start for item in machine.memory_map() if item.kind is MemoryKind.RAM][2:4] == [0x100000, 0x103000]


def test_frames_without_a_page_may_be_among_others(tmp_path: Path) -> None:
    record = built.page_data({0x300000: MEMORY[0]}, gone=[7, 8, 9])
    with opened(tmp_path, built.libxc(record, built.record(0))) as machine:
        assert machine.memory_map() == (MemoryRange(0x300000, 5 * PAGE),)
        assert_holds(machine, {0x300000: MEMORY[0]})


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (lambda: built.core(MEMORY, magic=built.PARAVIRTUAL), "a core of a paravirtual Xen domain"),
        (lambda: built.core(MEMORY, version=1 << 32), "a core of a Xen domain of version 1.0"),
        (lambda: built.xl(b"", flags=1), "a saved domain of a Xen before 4.6, which cannot be read: convert it"),
        (lambda: built.xl(b"", order=0x04030201), "a saved domain of Xen with big-endian numbers"),
        (lambda: built.libxl(b"", version=3), "a saved domain of Xen of version 3 with options 0x0"),
        (lambda: built.libxl(b"", options=1), "a saved domain of Xen of version 2 with options 0x1"),
        (lambda: libxc(version=4), "a saved domain of Xen of version 4 with options 0x0"),
        (lambda: libxc(options=1), "a saved domain of Xen of version 3 with options 0x1"),
        (lambda: libxc(kind=1), "a saved paravirtual domain of Xen"),
        (lambda: b"libvirt-xml\n \0 \r" + bytes(48), "a saved machine of Xen (libvirt)"),
    ],
)
def test_what_is_not_read_is_named(tmp_path: Path, content: Callable[[], bytes], text: str) -> None:
    assert text in error(tmp_path, content(), DriverUnavailableError)


def page_record(*numbers: int, pages: int = 0, count: int | None = None) -> bytes:
    """A stream of one PAGE_DATA record that may contradict itself."""
    head = struct.pack("<I4x", len(numbers) if count is None else count)
    told = struct.pack(f"<{len(numbers)}Q", *numbers)
    return built.libxc(built.record(1, head + told + bytes(pages * PAGE)), bytes(PAGE))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (lambda: built.core(MEMORY, numbers=[1, 2, 2, *range(9, 54)]), "frame 0x2 is not in its order"),
        (lambda: built.core(MEMORY, numbers=[*range(47), 1 << 40]), "frame 0x10000000000 is not in its order"),
        (lambda: built.core(MEMORY, numbers=range(47)), "0x30 pages would have 0x30000 bytes"),
        (lambda: built.core(MEMORY, [bytes(5167)]), "1 vCPUs would have 0x142f bytes"),
        (lambda: CORE.replace(b".xen_pfn", b".xen_xxx"), "it has no section .xen_pfn"),
        (lambda: CORE.replace(struct.pack("<Q", built.FULL), bytes(8)), "its kind is 0x0"),
        (lambda: CORE[:-200], "the names of sections would lie at"),
        (lambda: CORE[:0x3A] + bytes(2) + CORE[0x3C:], "told in 0 bytes each"),
        (lambda: page_record(1, 2, pages=1), "a record of pages at 0x30 would end at"),
        (lambda: page_record(1, pages=2), "a record of pages at 0x30 would end at"),
        (lambda: page_record(count=0), "would have 0 of them"),
        (lambda: page_record(count=1 << 17), "would have 131072 of them"),
        (lambda: page_record(1 << 51, pages=1), "memory would be at 0x80000000000000"),
        (lambda: libxc(kind=7), "its domain is of kind 7"),
        (lambda: libxc(shift=16), "its domain is of kind 2, with pages of 2^16 bytes"),
        (lambda: built.xl(b"rubbish" * 9), "there is no header of libxl"),
        (lambda: struct.pack(">8s2I", b"LibxlFmt", 2, 0) + built.record(0), "its stream has no memory"),
        (lambda: built.libxl(b"rubbish" * 9), "there is no header of libxc"),
    ],
)
def test_what_contradicts_itself_is_an_error(tmp_path: Path, content: Callable[[], bytes], text: str) -> None:
    for options in ({}, {"partial": "on"}):
        said = error(tmp_path, content(), IoError, **options)
        assert "is cut short or damaged" in said
        assert text in said
        assert "\n" not in said


def test_a_saved_domain_that_is_cut_is_an_error_and_partly_there(tmp_path: Path) -> None:
    whole = built.libxc(*pieces(MEMORY), STATE, built.record(0))
    places = [whole.index(MEMORY[0x100000][16 * PAGE :][:64]) + 2 * PAGE + 100, len(whole) - 8, len(whole) - 100]
    for place, there in zip(places, (18, 37, 37), strict=True):
        said = error(tmp_path, whole[:place], IoError)
        assert "open what is there with partial=on" in said
        with opened(tmp_path, whole[:place], partial="on") as machine:
            assert machine.read_physical(0x100000, there * PAGE) == MEMORY[0x100000][: there * PAGE]
            assert machine.read_physical_into(0x100000, bytearray(37 * PAGE)) == there * PAGE


def test_a_saved_domain_may_be_cut_in_the_numbers_of_a_record(tmp_path: Path) -> None:
    first, second = pieces(MEMORY)[:2]
    for more in (4, 10, 20):
        with opened(tmp_path, built.libxc(first, second[:more]), partial="on") as machine:
            assert_holds(machine, {0: MEMORY[0]})


def test_runs_of_numbers_are_found_whatever_is_between_them() -> None:
    source = random.Random("runs")
    for _ in range(300):
        numbers = sorted(source.sample(range(60), source.randrange(1, 50))) + [INVALID] * source.randrange(3)
        if source.random() < 0.5:
            source.shuffle(numbers)
        found = list(runs(words("Q", numbers)))
        told = [(index + at, first + at) for index, first, count in found for at in range(count)]
        assert told == [(index, number) for index, number in enumerate(numbers) if number != INVALID]
    assert len(list(runs(words("Q", range(1 << 16))))) == 1
