# SPDX-License-Identifier: Apache-2.0
"""Snapshots of Firecracker: the memory with its holes, found beside the state, and the registers of every vCPU."""

from __future__ import annotations

import os
import random
import struct
import time
from pathlib import Path

import pytest
from drivers.dump import builders_firecracker as built
from drivers.dump.builders import GENERAL, PAGE, SEGMENTS, values
from drivers.dump.builders_cloudhypervisor import CONTROL

from libmicrovmi_py import DriverUnavailableError, IoError, Microvmi, NotSupportedError

MIB, GIB = 1 << 20, 1 << 30
RAM = random.Random("memory").randbytes(2 * MIB)
VCPUS = [values(0), values(1), values(2)]
STATE = built.state(len(RAM), [built.vcpu(vcpu) for vcpu in VCPUS], regions=[(0, len(RAM))])


def written(folder: Path, state: str, memory: str, content: bytes = STATE) -> Path:
    """A folder with both files, and the state's path."""
    (folder / memory).write_bytes(RAM)
    (folder / state).write_bytes(content)
    return folder / state


def opened(path: Path, **options: str) -> Microvmi:
    """The file as a machine."""
    return Microvmi(driver="dump", path=path, **options)


NAMES = [("a.snap", "a.mem"), ("snapshot_file", "mem_file"), ("snapfile", "memfile"), ("vmstate", "vm.mem")]


@pytest.mark.parametrize(("state", "memory"), [*NAMES, ("a.vmstate", "a.mem"), ("vm.state", "vm.mem")])
@pytest.mark.parametrize("named", [0, 1])
def test_the_one_file_is_found_by_the_other(tmp_path: Path, state: str, memory: str, named: int) -> None:
    written(tmp_path, state, memory)
    with opened(tmp_path / (state, memory)[named]) as machine:
        assert machine.read_physical(0, len(RAM)) == RAM
        assert machine.max_addr == len(RAM)
        assert machine.vcpu_count() == len(VCPUS)


def test_a_folder_with_the_documented_names_is_a_snapshot(tmp_path: Path) -> None:
    written(tmp_path, "snapshot_file", "mem_file")
    with opened(tmp_path) as machine:
        assert machine.read_physical(0, len(RAM)) == RAM


@pytest.mark.parametrize("lists", [1, 2, 6])
def test_registers_of_every_vcpu_are_those_of_the_state(tmp_path: Path, lists: int) -> None:
    content = built.state(len(RAM), [built.vcpu(vcpu, lists=lists) for vcpu in VCPUS])
    with opened(written(tmp_path, "a.snap", "a.mem", content)) as machine:
        for vcpu, expected in enumerate(VCPUS):
            state = machine.read_state(vcpu)
            names = (*GENERAL, "cr0", "cr2", "cr3", "cr4")
            assert {name: state[name] for name in names} == {name: expected[name] for name in names}
            for name in (*SEGMENTS, "ldt", "tr"):
                assert tuple(state[f"{name}_{part}"] for part in ("base", "limit", "selector")) == expected[name]
                assert state[f"{name}_attributes"] == expected["attributes"][name]
            assert {name: state[name] for name in CONTROL} == CONTROL
            assert tuple(state[f"dr{index}"] for index in (0, 1, 2, 3, 6, 7)) == built.DEBUG
            assert (state["star"], state["lstar"], state["cstar"], state["fmask"]) == (0x81, 0x82, 0x83, 0x84)
            assert (state["kernel_gs_base"], state["sysenter_cs"], state["xcr0"]) == (0x102, 0x10, 7)


def test_a_list_of_msrs_that_does_not_add_up_is_none(tmp_path: Path) -> None:
    content = STATE.replace(struct.pack("<2IQ", 6, 0, 6), struct.pack("<2IQ", 6, 0, 5))
    assert content != STATE
    with opened(written(tmp_path, "a.snap", "a.mem", content)) as machine:
        state = machine.read_state(0)
    assert "star" not in state
    assert state["efer"] == CONTROL["efer"]


@pytest.mark.parametrize("long", [False, True])
def test_what_a_guest_has_in_its_vector_registers_is_no_vcpu(tmp_path: Path, long: bool) -> None:
    forged = bytes(512) + built.row(values(7))
    more = forged + bytes(-len(forged) % 4) if long else None
    content = built.state(len(RAM), [built.vcpu(vcpu, xsave=forged, more=more) for vcpu in VCPUS])
    with opened(written(tmp_path, "a.snap", "a.mem", content)) as machine:
        assert machine.vcpu_count() == len(VCPUS)
        assert [machine.read_state(vcpu)["rip"] for vcpu in range(3)] == [vcpu["rip"] for vcpu in VCPUS]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 8, 9, 32])
def test_registers_of_a_packed_state(tmp_path: Path, count: int) -> None:
    vcpus = [values(vcpu) for vcpu in range(count)]
    content = built.packed_state(len(RAM), vcpus, forged=[values(77)] * count)
    with opened(written(tmp_path, "a.snap", "a.mem", content)) as machine:
        assert machine.vcpu_count() == count
        assert machine.read_physical(0, len(RAM)) == RAM
        for vcpu, expected in enumerate(vcpus):
            state = machine.read_state(vcpu)
            names = (*GENERAL, "cr0", "cr2", "cr3", "cr4")
            assert {name: state[name] for name in names} == {name: expected[name] for name in names}
            assert {name: state[name] for name in CONTROL} == CONTROL
            assert (state["tr_base"], state["tr_limit"], state["tr_selector"]) == expected["tr"]


@pytest.mark.parametrize(
    ("version", "magic", "size", "expected"),
    [
        ("3.0.0", built.X86, 3 * GIB + MIB, [(0, 3 * GIB + MIB)]),
        ("3.0.0", built.X86, 5 * GIB, [(0, 0xD0000000), (4 * GIB, 5 * GIB - 0xD0000000)]),
        ("8.0.0", built.X86, 3 * GIB, [(0, 3 * GIB)]),
        ("8.0.0", built.X86, 3 * GIB + MIB, [(0, 3 * GIB), (4 * GIB, MIB)]),
        ("6.0.0", built.X86, 400 * GIB, [(0, 0xD0000000), (4 * GIB, 400 * GIB - 0xD0000000)]),
        ("8.0.0", built.X86, 400 * GIB, [(0, 3 * GIB), (4 * GIB, 252 * GIB), (512 * GIB, 145 * GIB)]),
        ("9.0.0", built.X86, 200 * MIB, [(0, 200 * MIB)]),
        ("10.0.0", built.X86, 5 * GIB, [(0, 3 * GIB), (4 * GIB, 2 * GIB)]),
        ("11.0.0", built.ARM, 3 * GIB, [(2 * GIB, 3 * GIB)]),
        ("3.0.0", built.ARM, 5 * GIB, [(2 * GIB, 5 * GIB)]),
        ("8.0.0", built.ARM, 300 * GIB, [(2 * GIB, 254 * GIB), (512 * GIB, 46 * GIB)]),
    ],
)
def test_holes_are_those_of_the_version(
    tmp_path: Path, version: str, magic: int, size: int, expected: list[tuple[int, int]]
) -> None:
    make = built.packed_state if int(version.split(".")[0]) > 8 else built.state
    path = written(tmp_path, "a.snap", "a.mem", make(size, magic=magic, version=version))
    with (tmp_path / "a.mem").open("r+b") as file:
        file.truncate(size)
        offset = 0
        for _, length in expected:
            file.seek(offset + length - 8)
            file.write(struct.pack("<Q", offset + 1))
            offset += length
    with opened(path) as machine:
        assert [(item.start, item.size) for item in machine.memory_map()] == expected
        offset = 0
        for start, length in expected:
            assert machine.read_physical(start + length - 8, 8) == struct.pack("<Q", offset + 1)
            offset += length
        with pytest.raises(NotSupportedError):
            machine.vcpu_count()


def test_memory_that_was_plugged_in_is_said_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path, "a.snap", "a.mem", built.state(MIB))
    with opened(path) as machine:
        assert machine.max_addr == MIB
    assert "0x100000 bytes of memory that was plugged in" in caplog.text


def test_memory_that_is_cut_is_an_error_and_partly_there(tmp_path: Path) -> None:
    path = written(tmp_path, "a.snap", "a.mem")
    os.truncate(tmp_path / "a.mem", len(RAM) - PAGE)
    with pytest.raises(IoError, match=r"a\.mem is cut short.*4096 bytes are missing.*partial=on"):
        opened(path)
    with opened(path, partial="on") as machine:
        assert machine.read_physical(0, len(RAM) - PAGE) == RAM[:-PAGE]


def test_what_is_missing_and_what_is_newer_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, "a.snap", "another")
    with pytest.raises(DriverUnavailableError, match=r"state of a Firecracker machine alone.*a\.mem beside"):
        opened(path)
    with pytest.raises(DriverUnavailableError, match="snapshot of version 12"):
        opened(written(tmp_path, "b.snap", "b.mem", built.packed_state(len(RAM), version="12.0.0")))
    with pytest.raises(DriverUnavailableError, match="an old Firecracker machine"):
        opened(written(tmp_path, "c.snap", "c.mem", built.state(len(RAM), magic=built.X86 | 6)))
    with opened(written(tmp_path, "lone", "lone.mem").with_suffix(".mem")) as machine:
        assert machine.max_addr == len(RAM)  # as raw: there is no state of a name that belongs to it


@pytest.mark.parametrize(
    "content",
    [
        STATE[:12],
        STATE[:16],
        STATE[:24],
        built.state(len(RAM), version="x"),
        built.state(len(RAM), version="9.0.0"),
        built.packed_state(len(RAM), version="8.0.0"),
        built.packed_state(len(RAM))[:9],
        built.packed_state(len(RAM))[:17],
        built.packed_state(0),
        built.packed_state(len(RAM)).replace(b"0\6\2", b"0\7\2"),
        built.packed_state(1 << 63),
        built.state(0),
        built.state(1 << 63),
        STATE[:8] + struct.pack("<Q", 1 << 63) + STATE[16:],
    ],
)
def test_a_state_that_lies_is_an_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(IoError, match="cut short"):
        opened(written(tmp_path, "a.snap", "a.mem", content))


def test_hostile_states_cost_no_time(tmp_path: Path) -> None:
    started = time.process_time()
    marks = STATE + struct.pack("<Q", 144) * 50_000
    with opened(written(tmp_path, "a.snap", "a.mem", marks)) as machine:
        assert machine.vcpu_count() == len(VCPUS)
    many = built.state(len(RAM), [built.row(VCPUS[0])] * 300)
    with opened(written(tmp_path, "a.snap", "a.mem", many)) as machine:
        assert machine.vcpu_count() <= 300
    packed = built.packed_state(len(RAM), VCPUS) + b"\xff\4\x38\1\0" * 50_000
    with opened(written(tmp_path, "a.snap", "a.mem", packed)) as machine:
        assert machine.vcpu_count() == len(VCPUS)
    with (tmp_path / "a.snap").open("r+b") as file:
        file.truncate(1 << 42)
    with pytest.raises(DriverUnavailableError, match="4398046511104 bytes"):
        opened(tmp_path / "a.snap")
    assert time.process_time() - started < 5
