# SPDX-License-Identifier: Apache-2.0
"""Machines of Firecracker and Cloud Hypervisor, played by processes of our own that map memory as those do."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from vmm_simulators import VmmSimulators, numbered

from libmicrovmi_py import (
    DriverUnavailableError,
    InvalidArgumentError,
    Microvmi,
    NoDriverError,
    NotSupportedError,
    VmGoneError,
    list_vms,
)
from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.drivers.vmm import _KINDS, _pieces
from libmicrovmi_py.model import MemoryRange

MIB = 1 << 20
GIB = 1 << 30
SIZE = 13 * MIB
SMALL = f"private:{SIZE:x}"

_numbers = itertools.count()


@pytest.fixture
def simulators(tmp_path: Path) -> Iterator[VmmSimulators]:
    with VmmSimulators(tmp_path) as found:
        yield found


def config(folder: Path, mib: object = SIZE // MIB, **more: object) -> Path:
    path = folder / f"config{next(_numbers)}"
    path.write_text(json.dumps({"machine-config": {"vcpu_count": 2, "mem_size_mib": mib}, **more}))
    return path


def why_refused(pid: int) -> str:
    with pytest.raises(DriverUnavailableError) as caught:
        Microvmi(str(pid), driver="vmm")
    return str(caught.value)


# ----------------------------------------------------------------------------------------------------------- the layout


def test_a_machine_of_firecracker_opens_by_id_pid_and_socket(simulators: VmmSimulators, tmp_path: Path) -> None:
    name, socket = f"fire-{os.getpid()}", str(tmp_path / "api.sock")
    options = ("--id", name, "--api-sock", socket, "--config-file", str(config(tmp_path)))
    pid = simulators.start("firecracker", SMALL, *options).pid
    for text in (name, str(pid), socket):
        with Microvmi(text, driver="vmm") as machine:
            assert list(machine.memory_map()) == [MemoryRange(0, SIZE)]
            assert machine.read_physical(0, SIZE) == numbered(0, SIZE)
    with Microvmi(name) as machine:
        assert machine.driver.name == "vmm"
        machine.write_physical(0x1001, b"written")
        assert machine.read_physical(0x1000, 9) == b"\0written\0"


@pytest.mark.parametrize("kind", ["private", "memfd", "file"])
def test_a_machine_of_cloud_hypervisor_opens(simulators: VmmSimulators, kind: str) -> None:
    options = ["--kernel", "vmlinux", "--memory", "size=13M,shared=on", "--disk", "path=a", "path=b", "-vv"]
    pid = simulators.start("cloud-hypervisor", f"{kind}:{SIZE:x}", *options).pid
    with Microvmi(str(pid), driver="vmm") as machine:
        assert machine.read_physical(0, SIZE) == numbered(0, SIZE)
        assert (Ability.MAP in machine.abilities.can) == (kind == "memfd")


@pytest.mark.parametrize(
    ("size", "gap", "expected"),
    [
        (GIB, 0, [(0, GIB)]),
        (GIB, 1, [(0, GIB)]),
        (0xD0000000, 0, [(0, 0xD0000000)]),
        (0xD0000000, 1, [(0, 0xC0000000), (4 * GIB, 0x10000000)]),
        (8 * GIB, 0, [(0, 0xD0000000), (4 * GIB, 8 * GIB - 0xD0000000)]),
        (300 * GIB, 1, [(0, 3 * GIB), (4 * GIB, 252 * GIB), (512 * GIB, 45 * GIB)]),
    ],
)
def test_ram_lies_around_the_gaps(size: int, gap: int, expected: list[tuple[int, int]]) -> None:
    assert list(_pieces(size, _KINDS[0].gaps[gap])) == expected


@pytest.mark.parametrize(("low", "word"), [(0xD0000000, "before"), (0xC0000000, "with")])
def test_the_size_of_its_mappings_tells_the_version(
    simulators: VmmSimulators, tmp_path: Path, low: int, word: str
) -> None:
    size = 0xD0000000 + 16 * MIB
    options = ("--no-api", "--config-file", str(config(tmp_path, size // MIB)))
    mappings = f"sparse:memfd:{low:x} sparse:memfd:{size - low:x}:{low:x}"
    pid = simulators.start("firecracker", mappings, *options).pid
    with Microvmi(str(pid), driver="vmm") as machine:
        assert list(machine.memory_map()) == [MemoryRange(0, low), MemoryRange(4 * GIB, size - low)], word
        assert machine.read_physical(0, 8) == bytes(8)
        assert machine.read_physical(4 * GIB, 8) == (1).to_bytes(8, "little")


# ---------------------------------------------------------------------------------------------------------- what it has


def test_there_is_the_memory_alone(simulators: VmmSimulators, tmp_path: Path) -> None:
    process = simulators.start("firecracker", SMALL, "--no-api", "--config-file", str(config(tmp_path)))
    with Microvmi(str(process.pid), driver="vmm") as machine:
        assert machine.abilities.can == Ability.READ | Ability.WRITE | Ability.MEMORY_MAP | Ability.VIRTUAL
        with pytest.raises(NotSupportedError, match="the memory alone"):
            machine.pause()
        process.kill()
        process.wait()
        with pytest.raises(VmGoneError):
            machine.memory_map()
        with pytest.raises(VmGoneError):
            machine.read_physical(0, 8)


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("mappings", "options", "reason"),
    [
        (SMALL, "--api-sock /run/a", "set up through its API"),
        (SMALL, "--config-file /none", "/none cannot be read"),
        (SMALL, "--config-file {} --unheard-of", "--unheard-of"),
        (f"{SMALL} {SMALL}", "--config-file {}", "not one mapping"),
        ("private:400000", "--config-file {}", "not one mapping"),
    ],
)
def test_a_machine_of_firecracker_that_is_not_certain(
    simulators: VmmSimulators, tmp_path: Path, mappings: str, options: str, reason: str
) -> None:
    words = options.format(config(tmp_path)).split()
    assert reason in why_refused(simulators.start("firecracker", mappings, *words).pid)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "no mem_size_mib"),
        ('{"machine-config": 1}', "no mem_size_mib"),
        ('{"machine-config": {"mem_size_mib": "8"}}', "no mem_size_mib"),
        ('{"machine-config": {"mem_size_mib": true}}', "no mem_size_mib"),
        ('{"machine-config": {"mem_size_mib": -8}}', "no size of RAM"),
        ('{"machine-config": {"mem_size_mib": 99999999999999}}', "no size of RAM"),
        ('{"machine-config": {"mem_size_mib": 13}, "memory-hotplug": {}}', "plugged in"),
    ],
)
def test_a_file_of_firecracker_that_makes_no_sense(
    simulators: VmmSimulators, tmp_path: Path, content: str, reason: str
) -> None:
    path = tmp_path / "config"
    path.write_text(content)
    assert reason in why_refused(simulators.start("firecracker", SMALL, "--config-file", str(path)).pid)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("--api-socket /run/a", "set up through its API"),
        ("--kernel k --memory size=13M,hotplug_size=13M", "hotplug_size of --memory"),
        ("--kernel k --memory size=0 --memory-zone id=a,size=13M", "--memory-zone"),
        ("--restore source_url=file:///a", "--restore"),
        ("--kernel k --memory size=8Q", "no size of RAM"),
        ("--kernel k --memory size=13M --platform sev_snp=on", "encrypted"),
        ("--kernel k --memory size=16M", "not one mapping"),
        ("--kernel k", "not one mapping"),
    ],
)
def test_a_machine_of_cloud_hypervisor_that_is_not_certain(
    simulators: VmmSimulators, options: str, reason: str
) -> None:
    assert reason in why_refused(simulators.start("cloud-hypervisor", SMALL, *options.split()).pid)


def test_two_of_one_name_are_told(simulators: VmmSimulators, tmp_path: Path) -> None:
    name = f"twins-{os.getpid()}"
    options = ("--id", name, "--config-file", str(config(tmp_path)))
    pids = [simulators.start("firecracker", SMALL, *options).pid for _ in range(2)]
    with pytest.raises(InvalidArgumentError, match=f"2 machines are named '{name}'.*pid {pids[0]}.*pid {pids[1]}"):
        Microvmi(name, driver="vmm")


def test_another_program_of_such_a_command_line_is_none(simulators: VmmSimulators, tmp_path: Path) -> None:
    name = f"none-{os.getpid()}"
    simulators.start("vm-runner", SMALL, "--id", name, "--config-file", str(config(tmp_path)))
    with pytest.raises(InvalidArgumentError, match="no machine of Firecracker or Cloud Hypervisor"):
        Microvmi(name, driver="vmm")
    with pytest.raises(NoDriverError):
        Microvmi(name)


def test_machines_are_listed_with_what_they_can(simulators: VmmSimulators, tmp_path: Path) -> None:
    name = f"listed-{os.getpid()}"
    options = ("--id", name, "--config-file", str(config(tmp_path)))
    pid = simulators.start("firecracker", SMALL, *options).pid
    refused = simulators.start("cloud-hypervisor", SMALL, "--api-socket", "/run/a").pid
    found = {machine.process_id: machine for machine in list_vms("vmm")}
    assert (found[pid].name, found[pid].memory, found[pid].user_id) == (name, SIZE, os.geteuid())
    with Microvmi.open(found[pid].uri) as machine:
        assert machine.abilities.can == found[pid].abilities
    assert found[refused].abilities == Ability(0)
    with pytest.raises(DriverUnavailableError) as caught:
        Microvmi.open(found[refused].uri)
    assert found[refused].reason == str(caught.value)
