# SPDX-License-Identifier: Apache-2.0
"""The files of a machine: which there are, and what is in them."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator

import pytest
from tools.mount.fusekernel import ROOT, Kernel, failing, talking

from libmicrovmi_py import Microvmi
from libmicrovmi_py.tools.mount.tree import MachineTree

MACHINE = "vmi://fake/?size=0x40000&holes=0x4000-0x6000&rom=0x10000-0x12000&vcpus=3"
SIZE = 0x40000


@pytest.fixture
def machine() -> Iterator[Microvmi]:
    with Microvmi.open(MACHINE) as vm:
        yield vm


@pytest.fixture
def live(machine: Microvmi) -> Iterator[Kernel]:
    """The machine as it runs."""
    with talking(MachineTree(machine, None)) as kernel:
        kernel.begin()
        yield kernel


@pytest.fixture
def still(machine: Microvmi) -> Iterator[Kernel]:
    """A snapshot."""
    with machine.snapshot() as copy, talking(MachineTree(copy, None)) as kernel:
        kernel.begin()
        yield kernel


def memory_of(machine: Microvmi) -> bytes:
    content = bytearray(machine.max_addr)
    machine.read_physical_padded_into(0, content)
    return bytes(content)


@pytest.fixture(params=["live", "still"])
def kernel(request: pytest.FixtureRequest) -> Kernel:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Kernel)
    return found


def test_the_names_are_those(kernel: Kernel) -> None:
    assert kernel.names(ROOT) == [".", "..", "memory", "memory.elf", "map.json", "vcpus"]
    assert kernel.names(kernel.path("vcpus")) == [".", "..", "0.json", "1.json", "2.json"]


@pytest.mark.parametrize(
    "path", ["nosuch", "processes", "vcpus/3.json", "vcpus/00.json", "vcpus/0", "vcpus/-1.json", "memory/x", ""]
)
def test_no_other_name_is_there(kernel: Kernel, path: str) -> None:
    assert failing(lambda: kernel.path(path)) == "ENOENT"


@pytest.mark.parametrize("node", [0, 12, 15, 1 << 62, (1 << 64) - 1, 8 | 5 << 4, 9 | 5 << 4, 7 | 99 << 4])
def test_a_number_that_is_no_file_s_is_an_error(kernel: Kernel, node: int) -> None:
    assert failing(lambda: kernel.open(node)) != ""
    assert failing(lambda: kernel.read(node, 0, 1)) != ""


def test_memory_is_what_the_machine_has(kernel: Kernel, machine: Microvmi) -> None:
    assert kernel.content("memory") == memory_of(machine)
    assert kernel.lookup("memory")[1] == SIZE


def test_the_elf_core_opens_as_a_dump(kernel: Kernel, machine: Microvmi, tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "core")
    with open(path, "wb") as file:
        assert file.write(kernel.content("memory.elf")) == kernel.lookup("memory.elf")[1]
    with Microvmi.open(path) as dump:
        assert memory_of(dump) == memory_of(machine)
        assert [state["rip"] for state in dump.read_states()] == [state["rip"] for state in machine.read_states()]


def test_the_map_is_json(kernel: Kernel, machine: Microvmi) -> None:
    told = json.loads(kernel.content("map.json"))
    assert [(int(item["start"], 16), item["size"], item["kind"]) for item in told] == [
        (item.start, item.size, item.kind.name.lower()) for item in machine.memory_map()
    ]


def test_registers_are_json(kernel: Kernel, machine: Microvmi) -> None:
    for vcpu, state in enumerate(machine.read_states()):
        told = json.loads(kernel.content(f"vcpus/{vcpu}.json"))
        assert (told["vcpu"], told["architecture"]) == (vcpu, "x86")
        assert {name: int(value, 16) for name, value in told["registers"].items()} == dict(state)


def test_holes_are_holes(kernel: Kernel) -> None:
    handle = kernel.open(kernel.path("memory")).handle
    assert kernel.seek(handle, 0x1000, os.SEEK_HOLE) == 0x4000
    assert kernel.seek(handle, 0x4800, os.SEEK_DATA) == 0x6000
    assert kernel.seek(handle, 0x6000, os.SEEK_HOLE) == SIZE
    for offset, whence in ((SIZE, os.SEEK_DATA), (SIZE + 1, os.SEEK_HOLE), (0, 7)):
        assert failing(functools.partial(kernel.seek, handle, offset, whence)) in ("ENXIO", "EINVAL")


def test_what_is_made_for_a_reader_has_a_size_only_where_nothing_changes(live: Kernel, still: Kernel) -> None:
    assert still.lookup("map.json")[1] == len(still.content("map.json"))
    assert live.lookup("map.json")[1] == 0


def test_a_machine_that_runs_is_read_as_it_is_now(live: Kernel, machine: Microvmi) -> None:
    handle = live.open(live.path("memory")).handle
    for content in (b"first", b"later"):
        machine.write_physical(0x1000, content)
        assert live.read(handle, 0x1000, 5) == content


def test_registers_of_a_machine_that_runs_are_those_of_the_opening(live: Kernel, machine: Microvmi) -> None:
    def told() -> int:
        return int(json.loads(live.content("vcpus/1.json"))["registers"]["rax"], 16)

    def noted() -> bytes:
        return live.content("memory.elf")[:0x2000]

    machine.pause()
    machine.write_state({"rax": 0x1122334455667788}, 1)
    before = noted()
    assert (told(), (0x1122334455667788).to_bytes(8, "little") in before) == (0x1122334455667788, True)
    machine.write_state({"rax": 0x5522334455667799}, 1)
    assert (told(), (0x5522334455667799).to_bytes(8, "little") in noted()) == (0x5522334455667799, True)


def test_a_snapshot_is_of_its_moment(still: Kernel, machine: Microvmi) -> None:
    before = still.content("memory")
    machine.write_physical(0x1000, b"later")
    assert still.content("memory") == before


def test_memory_that_cannot_be_read_is_an_error() -> None:
    with Microvmi.open(f"{MACHINE}&unreadable=0x8000-0x9000") as vm, talking(MachineTree(vm, None)) as kernel:
        kernel.begin()
        handle = kernel.open(kernel.path("memory")).handle
        assert failing(lambda: kernel.read(handle, 0x7000, 0x3000)) == "EIO"
        assert kernel.read(handle, 0x7000, 0x1000)


def test_a_dump_without_registers_has_no_vcpus(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "raw")
    with open(path, "wb") as file:
        file.write(b"x" * 4096)
    with Microvmi.open(path) as vm, talking(MachineTree(vm, None)) as kernel:
        kernel.begin()
        assert kernel.names(kernel.path("vcpus")) == [".", ".."]
        assert kernel.content("memory") == b"x" * 4096
