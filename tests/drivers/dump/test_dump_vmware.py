# SPDX-License-Identifier: Apache-2.0
"""States of VMware machines, with memory in them or beside them, and the registers of every vCPU."""

from __future__ import annotations

import random
import struct
import time
from pathlib import Path

import pytest
from drivers.dump import builders_vmware as built
from drivers.dump.builders import PAGE, values

from libmicrovmi_py import DriverUnavailableError, IoError, Microvmi, NotSupportedError
from libmicrovmi_py.drivers.dump.image import File
from libmicrovmi_py.drivers.dump.opening import Opening
from libmicrovmi_py.drivers.dump.recognition import recognised
from libmicrovmi_py.drivers.dump.vmware_groups import Groups

LOW, HIGH = random.Random("low").randbytes(5 * PAGE), random.Random("high").randbytes(3 * PAGE)
RAM = LOW + HIGH
ROWS = [(0, 0, len(LOW)), (1 << 32, len(LOW), len(HIGH))]
VCPUS = [values(0), values(1), values(2)]
GROUPS = {
    "Checkpoint": built.checkpoint("VMware ESX", "4.1.0"),
    "cpu": built.vcpus(VCPUS),
    "memory": built.regions(ROWS),
}
FAR = built.number("regionPPN", 1 << 40, 0, size=8)


def written(folder: Path, name: str, content: bytes) -> Path:
    """A file of that content."""
    (folder / name).write_bytes(content)
    return folder / name


def opened(path: Path, **options: str) -> Microvmi:
    """The file as a machine."""
    return Microvmi(driver="dump", path=path, **options)


def assert_has_memory(machine: Microvmi) -> None:
    """Whether the machine has all of the memory, and no other."""
    assert [(item.start, item.size) for item in machine.memory_map()] == [(start, size) for start, _, size in ROWS]
    assert machine.max_addr == (1 << 32) + len(HIGH)
    assert machine.read_physical(0, len(LOW)) == LOW
    assert machine.read_physical(1 << 32, len(HIGH)) == HIGH
    assert machine.read_physical(PAGE - 3, PAGE) == LOW[PAGE - 3 :][:PAGE]


@pytest.mark.parametrize("ending", ["vmss", "vmsn"])
@pytest.mark.parametrize("named", ["the state", "the memory"])
def test_memory_beside_the_state_is_found_and_laid_by_its_regions(tmp_path: Path, ending: str, named: str) -> None:
    state = written(tmp_path, f"a machine-1.{ending}", built.state(GROUPS))
    memory = written(tmp_path, "a machine-1.vmem", RAM)
    with opened(state if named == "the state" else memory) as machine:
        assert_has_memory(machine)
        assert machine.vcpu_count() == len(VCPUS)


@pytest.mark.parametrize("padding", [0, 100, 3])
@pytest.mark.parametrize("indices", [(), (0, 0)])
def test_memory_in_the_state_is_read_where_it_is(tmp_path: Path, padding: int, indices: tuple[int, ...]) -> None:
    memory = [built.block("Memory", RAM, *indices, padding=padding), *GROUPS["memory"]]
    path = written(tmp_path, "machine.vmss", built.state({**GROUPS, "memory": memory, "later": [b""]}))
    with opened(path) as machine:
        assert_has_memory(machine)


@pytest.mark.parametrize(
    "magic", [b"\xd0\xbe\xd2\xbe", b"\xd1\xba\xd1\xba", b"\xd2\xba\xd2\xba", b"\xd2\xbe\xd2\xbe", b"\xd3\xbe\xd3\xbe"]
)
def test_every_version_is_read(tmp_path: Path, magic: bytes) -> None:
    memory = [built.block("Memory", RAM, 0, 0, wide=magic[0] != 0xD0), built.number("regionsCount", 0)]
    path = written(tmp_path, "a state of any name", built.state({"memory": memory}, magic))
    with opened(path) as machine:
        assert machine.read_physical(0, len(RAM)) == RAM
        assert machine.max_addr == len(RAM)


def test_regions_may_be_in_any_order(tmp_path: Path) -> None:
    written(tmp_path, "machine.vmem", RAM)
    state = built.state({**GROUPS, "memory": built.regions(ROWS[::-1])})
    with opened(written(tmp_path, "machine.vmss", state)) as machine:
        assert_has_memory(machine)


def test_memory_without_regions_begins_at_0(tmp_path: Path) -> None:
    written(tmp_path, "small.vmss", built.state({"memory": [built.number("regionsCount", 0)]}))
    with opened(written(tmp_path, "small.vmem", RAM)) as machine:
        assert machine.read_physical(0, len(RAM)) == RAM


def test_tags_stand_as_in_a_listing_of_a_true_state(tmp_path: Path) -> None:
    """Places of values in a state of VMware ESX 4.1, as the documentation of Volatility shows them."""
    cpu = [built.number(name, 0, 0, size=size) for name, size in (("eflags", 4), ("rip", 8), ("eip", 4), ("halted", 1))]
    rows = [("CR", 3, 4), ("CR", 4, 4), ("DR64", 0, 8)]
    later = [("DR64", 6, 8), ("DR", 6, 4), ("DR64", 7, 8), ("DR", 7, 4), ("GDTR", 0, 2), ("GDTR", 1, 4), ("GDTR", 2, 4)]
    listed = {
        "Checkpoint": [0x1CD9, 0x1CFC, 0x1E1D],
        "cpu": [0x2085, 0x2095, 0x20A2, 0x20B3, 0x20C3],
        "first": [0x5F1A, 0x5F2A, 0x5F3C],
        "second": [0x6020, 0x6034, 0x6046, 0x605A, 0x606C, 0x607C, 0x608E],
    }
    groups = {
        "Checkpoint": built.checkpoint("VMware ESX", "4.1.0"),
        "cpu": [built.number("cpu:numVCPUs", 1), *cpu],
        "first": [built.number(name, 0, 0, index, size=size) for name, index, size in rows],
        "second": [built.number(name, 0, 0, index, size=size) for name, index, size in later],
    }
    file = File.open(str(written(tmp_path, "listed.vmss", built.state(groups, b"\xd1\xba\xd1\xba"))))
    state = Groups(file)
    for name, places in listed.items():
        found = [tag.offset for tag in state.tags(name)]
        assert [place - found[0] for place in found] == [place - places[0] for place in places]
    file.opening.close()


@pytest.mark.parametrize("blocks", [False, True])
def test_registers_of_every_vcpu_are_those_of_the_state(tmp_path: Path, blocks: bool) -> None:
    written(tmp_path, "machine.vmem", RAM)
    path = written(tmp_path, "machine.vmss", built.state({**GROUPS, "cpu": built.vcpus(VCPUS, blocks=blocks)}))
    with opened(path) as machine:
        for vcpu, expected in enumerate(VCPUS):
            state = machine.read_state(vcpu)
            names = (*built.GENERAL, "rip", "rflags", "cr0", "cr2", "cr3", "cr4")
            assert {name: state[name] for name in names} == {name: expected[name] for name in names}
            for name in ("gdt", "idt"):
                assert (state[f"{name}_base"], state[f"{name}_limit"]) == expected[name]
            for name in built.SEGMENTS:
                assert (state[f"{name}_base"], state[f"{name}_selector"]) == (expected[name][0], expected[name][2])
            assert [state[f"dr{index}"] for index in (0, 1, 2, 3, 6, 7)] == [0xD0, 0xD1, 0xD2, 0xD3, 0xD6, 0xD7]
            assert ("cr8" in state) == blocks
            assert not {"efer", "cs_limit", "cs_attributes"} & set(state)


def test_lower_halves_count_where_there_is_nothing_else(tmp_path: Path) -> None:
    cpu = [built.number("cpu:numVCPUs", 2), built.number("eip", 0xC0100000, 1), built.number("CR", 0x1000, 1, 3)]
    cpu += [built.number("CR64", 0x100000002, 1, 2, size=8), built.number("CR", 2, 1, 2)]
    path = written(tmp_path, "machine.vmss", built.state({"cpu": cpu, "memory": [built.block("Memory", RAM)]}))
    with opened(path) as machine:
        assert machine.vcpu_count() == 2
        with pytest.raises(NotSupportedError, match="nothing is known of the registers of vCPU 0"):
            machine.read_state(0)
        assert dict(machine.read_state(1)) == {"rip": 0xC0100000, "cr3": 0x1000, "cr2": 0x100000002}


def test_the_product_that_wrote_the_state_is_known(tmp_path: Path) -> None:
    written(tmp_path, "machine.vmem", RAM)
    path = written(tmp_path, "machine.vmss", built.state(GROUPS))
    found = recognised(str(path), None, Opening())
    contents = found.read(found.image)
    assert (contents.producer, contents.processors.producer, found.format) == (*["VMware ESX 4.1.0"] * 2, "vmware")
    found.image.opening.close()


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    alone = written(tmp_path, "alone.vmss", built.state(GROUPS))
    with pytest.raises(
        DriverUnavailableError, match=r"the state of a VMware machine alone.*put its memory alone\.vmem"
    ):
        opened(alone)
    packed = [built.block("Memory", RAM, kind=62)]
    with pytest.raises(DriverUnavailableError, match=r"compressed memory.*vmss2core"):
        opened(written(tmp_path, "packed.vmss", built.state({"memory": packed})))
    with pytest.raises(DriverUnavailableError, match="several blocks"):
        opened(written(tmp_path, "two.vmss", built.state({"memory": [built.block("Memory", RAM, 0, 0)] * 2})))
    memory = written(tmp_path, "lone.vmem", RAM)
    with pytest.raises(DriverUnavailableError, match=r"without its state.*lone\.vmss or lone\.vmsn"):
        opened(memory, format="vmware")


def test_memory_whose_state_is_not_there_is_raw(tmp_path: Path) -> None:
    written(tmp_path, "lone.vmss", b"no state")
    with opened(written(tmp_path, "lone.vmem", RAM)) as machine:
        assert machine.read_physical(0, len(RAM)) == RAM


def test_a_file_that_is_cut_is_an_error_and_partly_there(tmp_path: Path) -> None:
    state = written(tmp_path, "cut.vmss", built.state(GROUPS))
    written(tmp_path, "cut.vmem", RAM[: len(LOW) + PAGE])
    with pytest.raises(IoError, match=r"cut\.vmem is cut short.*8192 bytes are missing.*partial=on"):
        opened(state)
    with opened(state, partial="on") as machine:
        assert machine.read_physical(1 << 32, PAGE) == HIGH[:PAGE]
        assert machine.max_addr == (1 << 32) + PAGE
    inside = built.state({"cpu": GROUPS["cpu"], "memory": [*GROUPS["memory"], built.block("Memory", RAM)]})
    path = written(tmp_path, "inside.vmss", inside[: -2 - 2 * PAGE])
    with pytest.raises(IoError, match=r"inside\.vmss is cut short.*partial=on"):
        opened(path)
    with opened(path, partial="on") as machine:
        assert machine.read_physical(0, len(LOW)) == LOW
        assert machine.max_addr == (1 << 32) + PAGE


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"memory": built.regions([(0, 0, 2 * PAGE), (PAGE, 2 * PAGE, PAGE)])}, "is there twice"),
        ({"memory": [built.number("regionsCount", 1 << 31)]}, "does not tell where number 0 is"),
        ({"memory": built.regions([(0xFFFFFFFF * PAGE, 0, 0xFFFFFFFF * PAGE)])}, "cut short"),
        (
            {"memory": [built.number("regionsCount", 1), *built.regions([(0, 0, PAGE)])[2:], FAR]},
            "0x1000 bytes from 0x10000000000000 on",
        ),
        ({"memory": [*built.regions(ROWS)[:-3], built.number("regionPPN", 1 << 50, 1, size=8)]}, "region|tell where"),
        ({"cpu": [built.number("cpu:numVCPUs", 0xFFFFFFFF)]}, "has 4294967295 vCPUs"),
    ],
)
def test_a_state_that_lies_is_an_error(tmp_path: Path, changed: dict[str, list[bytes]], error: str) -> None:
    written(tmp_path, "machine.vmem", RAM)
    with pytest.raises(IoError, match=error):
        opened(written(tmp_path, "machine.vmss", built.state({**GROUPS, **changed})))


def test_endless_groups_and_tags_cost_no_time(tmp_path: Path) -> None:
    """Tables that name a group a thousand times, counts that reach beyond the file, and a tail of TiB of nothing."""
    started = time.process_time()
    many = bytearray(built.state({**{f"{index}": [b""] for index in range(1000)}, **GROUPS}))
    for index in range(1000):
        many[12 + 80 * index : 18 + 80 * index] = b"memory"
    many_groups = bytes(many)
    too_many = built.MAGIC + struct.pack("<2I", 8, 0xFFFFFFFF) + bytes(4096)
    tags = built.state({"memory": [bytes([0, 1]) + b"x"] * 20_000})
    for number, content in enumerate((many_groups, too_many, tags, tags[:-2])):
        path = written(tmp_path, f"hostile-{number}.vmss", content)
        with path.open("r+b") as file:
            file.truncate(1 << 42)
        with pytest.raises((IoError, DriverUnavailableError)):
            opened(path)
    huge = built.block("gpregs", b"", 0, claimed=1 << 42)
    path = written(tmp_path, "huge.vmss", built.state({"memory": built.regions(ROWS), "cpu": [*GROUPS["cpu"], huge]}))
    with path.open("r+b") as file:
        file.truncate(1 << 43)
    written(tmp_path, "huge.vmem", RAM)
    with opened(path) as machine:
        assert machine.read_state(0)["rax"] == VCPUS[0]["rax"]
    assert time.process_time() - started < 5
