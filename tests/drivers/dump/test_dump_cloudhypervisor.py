# SPDX-License-Identifier: Apache-2.0
"""Snapshots of Cloud Hypervisor: a folder with the memory and the state, registers of every vCPU."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from drivers.dump import builders_cloudhypervisor as built
from drivers.dump.builders import GENERAL, PAGE, SEGMENTS, values

from libmicrovmi_py import DriverUnavailableError, IoError, Microvmi, NotSupportedError
from libmicrovmi_py.drivers.dump.opening import Opening
from libmicrovmi_py.drivers.dump.recognition import recognised
from libmicrovmi_py.drivers.saved.kvmstate import special
from libmicrovmi_py.model import Architecture

LOW, HIGH = random.Random("low").randbytes(5 * PAGE), random.Random("high").randbytes(3 * PAGE)
RANGES = [(1 << 32, len(HIGH)), (0, len(LOW))]
"""In the order of the file, which nobody promises to be that of the addresses."""
MEMORY = HIGH + LOW
VCPUS = [values(number) for number in range(12)]
STATE = built.state(RANGES, [built.x86(vcpu) for vcpu in VCPUS])


def opened(path: Path, **options: str) -> Microvmi:
    """The snapshot as a machine."""
    return Microvmi(driver="dump", path=path, **options)


@pytest.mark.parametrize("named", [".", "state.json", "memory-ranges"])
def test_the_folder_or_a_part_of_it_is_the_snapshot(tmp_path: Path, named: str) -> None:
    with opened(built.write(tmp_path / "snapshot", STATE, MEMORY) / named) as machine:
        assert [(item.start, item.size) for item in machine.memory_map()] == sorted(RANGES)
        assert machine.read_physical(0, len(LOW)) == LOW
        assert machine.read_physical(1 << 32, len(HIGH)) == HIGH
        assert machine.max_addr == (1 << 32) + len(HIGH)
        assert machine.vcpu_count() == len(VCPUS)


def test_registers_of_every_vcpu_are_those_of_the_state(tmp_path: Path) -> None:
    """Twelve vCPUs: by their names 10 comes before 2."""
    with opened(built.write(tmp_path / "snapshot", STATE, MEMORY)) as machine:
        for vcpu, expected in enumerate(VCPUS):
            state = machine.read_state(vcpu)
            names = (*GENERAL, "cr0", "cr2", "cr3", "cr4")
            assert {name: state[name] for name in names} == {name: expected[name] for name in names}
            for name in (*SEGMENTS, "ldt", "tr"):
                assert tuple(state[f"{name}_{part}"] for part in ("base", "limit", "selector")) == expected[name]
                assert state[f"{name}_attributes"] == expected["attributes"][name]
            for name in ("gdt", "idt"):
                assert (state[f"{name}_base"], state[f"{name}_limit"]) == expected[name]
            assert {name: state[name] for name in built.CONTROL} == built.CONTROL
            assert (state["star"], state["lstar"], state["cstar"], state["fmask"]) == (0x81, 0x82, 0x83, 0x84)
            assert (state["kernel_gs_base"], state["sysenter_cs"], state["xcr0"]) == (0x102, 0x10, 7)
            assert not {"tsc_aux", "dr0"} & set(state)


def test_registers_of_aarch64_vcpus(tmp_path: Path) -> None:
    state = built.state([(1 << 30, len(LOW))], [built.arm(0), built.arm(1)])
    with opened(built.write(tmp_path / "snapshot", state, LOW)) as machine:
        for vcpu in range(2):
            known, base = machine.read_state(vcpu), 0xA64000000 + 0x1000 * vcpu
            assert known.architecture is Architecture.AARCH64
            assert [known[f"x{index}"] for index in range(31)] == [base + index for index in range(31)]
            assert (known["sp_el0"], known["pc"], known["pstate"]) == (base + 31, base + 32, 0x3C5)
            assert (known["sp_el1"], known["elr_el1"], known["spsr_el1"]) == (0x51, 0xE1, 0x52)
            assert (known["ttbr0_el1"], known["ttbr1_el1"], known["tcr_el1"]) == (
                0x5EED + vcpu,
                0x5EEE + vcpu,
                0x5EEF + vcpu,
            )
        assert machine.read_physical(1 << 30, len(LOW)) == LOW


def test_a_vcpu_that_runs_aarch32_has_no_registers(tmp_path: Path) -> None:
    state = built.state([(1 << 30, len(LOW))], [built.arm(0, 0x1D3), built.arm(1)])
    with opened(built.write(tmp_path / "snapshot", state, LOW)) as machine:
        with pytest.raises(NotSupportedError):
            machine.read_state(0)
        assert machine.read_state(1)["pstate"] == 0x3C5


def test_a_segment_that_cannot_be_used_is_not_present() -> None:
    content = bytearray(built.sregs({**VCPUS[0], "attributes": dict.fromkeys((*SEGMENTS, "ldt", "tr"), 0xC93)}))
    content[24 + 22] = 1  # the second segment
    found = special(bytes(content))
    assert (found["cs_attributes"], found["ds_attributes"], found["es_attributes"]) == (0xC93, 0xC13, 0xC93)


def test_memory_that_is_kept_elsewhere_counts_and_is_not_there(tmp_path: Path) -> None:
    state = built.state([(0, len(LOW))], [], [(0, len(LOW)), (1 << 32, 8 * PAGE)])
    with opened(built.write(tmp_path / "snapshot", state, LOW)) as machine:
        assert machine.max_addr == (1 << 32) + 8 * PAGE
        assert [(item.start, item.size) for item in machine.memory_map()] == [(0, len(LOW))]
    found = recognised(str(tmp_path / "snapshot"), None, Opening())
    assert not found.read(found.image).whole
    found.image.opening.close()


def test_what_wrote_it_is_known(tmp_path: Path) -> None:
    found = recognised(str(built.write(tmp_path / "snapshot", STATE, MEMORY)), None, Opening())
    contents = found.read(found.image)
    assert (found.format, contents.producer, contents.machine) == ("cloudhypervisor", "Cloud Hypervisor", "x86_64")
    assert contents.whole
    found.image.opening.close()


def test_a_memory_file_that_is_cut_is_an_error_and_partly_there(tmp_path: Path) -> None:
    folder = built.write(tmp_path / "snapshot", STATE, MEMORY[:-PAGE])
    with pytest.raises(IoError, match=r"memory-ranges is cut short.*4096 bytes are missing.*partial=on"):
        opened(folder)
    with opened(folder, partial="on") as machine:
        assert machine.read_physical(0, 4 * PAGE) == LOW[:-PAGE]


def test_parts_and_other_versions_are_named(tmp_path: Path) -> None:
    folder = built.write(tmp_path / "snapshot", STATE, MEMORY)
    (folder / "memory-ranges").unlink()
    with pytest.raises(DriverUnavailableError, match=r"a part of a snapshot.*put state\.json and memory-ranges"):
        opened(folder / "state.json")
    older = built.text({"snapshots": {"memory-manager": {"snapshots": {}, "snapshot_data": [1, 2, 3]}}})
    with pytest.raises(DriverUnavailableError, match="another version of Cloud Hypervisor"):
        opened(built.write(folder, older, MEMORY))
    with pytest.raises(IoError, match="not a whole text of JSON"):
        opened(built.write(folder, STATE[:-10], MEMORY))


@pytest.mark.parametrize(
    ("ranges", "error"),
    [
        ([(0, 2 * PAGE), (PAGE, PAGE)], "is there twice"),
        ([(0, 1 << 60)], "is no memory"),
        ([(-1, PAGE)], "is no memory"),
        ([(1 << 70, PAGE)], "is no memory"),
        ([(0, 0)], "no memory in it"),
    ],
)
def test_a_state_that_lies_is_an_error(tmp_path: Path, ranges: list[tuple[int, int]], error: str) -> None:
    with pytest.raises(IoError, match=error):
        opened(built.write(tmp_path / "snapshot", built.state(ranges, []), MEMORY))


@pytest.mark.parametrize(
    "vcpu", [None, {}, {"Mshv": {}}, {"Kvm": {"regs": [999], "sregs": "x", "msrs": [1, {"index": -1}]}}]
)
def test_a_vcpu_that_is_not_understood_is_counted(tmp_path: Path, vcpu: object) -> None:
    with opened(
        built.write(tmp_path / "snapshot", built.state(RANGES, [built.x86(VCPUS[0]), vcpu]), MEMORY)
    ) as machine:
        assert machine.vcpu_count() == 2
        assert machine.read_state(0)["rip"] == VCPUS[0]["rip"]


def test_hostile_states_cost_no_time(tmp_path: Path) -> None:
    started = time.process_time()
    deep = built.text({"snapshots": {"memory-manager": {}}})[:-1] + ',"x":' + "[" * 100_000
    for content in (deep, STATE.replace('"gpa\\":0', '"gpa\\":' + "9" * 9000), '{"snapshots":{' + "\0" * 100):
        folder = built.write(tmp_path / "snapshot", content, MEMORY)
        with pytest.raises((IoError, DriverUnavailableError)):
            opened(folder)
    with (folder / "state.json").open("r+b") as file:
        file.truncate(1 << 42)
    with pytest.raises(DriverUnavailableError, match="a state of Cloud Hypervisor of 4398046511104 bytes"):
        opened(folder)
    assert time.process_time() - started < 5
