# SPDX-License-Identifier: Apache-2.0
"""A QEMU without a monitor: what its command line says of its memory, and a process that has memory as QEMU has it."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from vmm_simulators import VmmSimulators, numbered

from libmicrovmi_py import (
    DriverUnavailableError,
    InvalidArgumentError,
    IoError,
    Microvmi,
    NotSupportedError,
    VmGoneError,
    list_vms,
)
from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.drivers.qemu.split import UncertainError, split_of
from libmicrovmi_py.listed import MachineState
from libmicrovmi_py.model import Architecture, MemoryRange
from libmicrovmi_py.transport.processes import Process

MIB = 1 << 20
GIB = 1 << 30
SIZE = 48 * MIB
X86, ARM = "qemu-system-x86_64", "qemu-system-aarch64"
HOLE = (0xA0000, 0x100000)

_numbers = itertools.count()

# -------------------------------------------------------------------------------------------------- by the command line


def pieces(*options: str, program: str = X86) -> list[tuple[int, int, int]]:
    return [(start, size, offset) for start, size, offset in split_of([program, *options], program).pieces]


def low(size: int) -> list[tuple[int, int, int]]:
    return [(0, HOLE[0], 0), (HOLE[1], size - HOLE[1], HOLE[1])]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", low(128 * MIB)),
        ("-m 512", low(512 * MIB)),
        ("--m size=512m", low(512 * MIB)),
        ("-m 524288k -machine pc", low(512 * MIB)),
        ("-m 3583", low(3583 * MIB)),
        ("-m 3584", [*low(3 * GIB), (4 * GIB, GIB // 2, 3 * GIB)]),
        ("-m 5G -machine pc-i440fx-2.12,accel=kvm:tcg", [*low(3 * GIB), (4 * GIB, 2 * GIB, 3 * GIB)]),
        ("-m 2815 -M q35", low(2815 * MIB)),
        ("-m 2816 -M q35", [*low(2 * GIB), (4 * GIB, 768 * MIB, 2 * GIB)]),
        ("-m 5G -M type=pc-q35-7.2,usb=off -machine smm=on", [*low(2 * GIB), (4 * GIB, 3 * GIB, 2 * GIB)]),
        ("-m 64 -m 512 -append -m=1G disk.img", low(512 * MIB)),
        ("-m 1", [(0, HOLE[0], 0)]),
        ("-m 1.5G", low(1536 * MIB)),
        ("-m 64 -M pc,memory-backend=x -object memory-backend-memfd,id=x,size=64M", low(64 * MIB)),
        (
            '-m 64 -M pc,memory-backend=x -object {"qom-type":"memory-backend-ram","id":"x","size":67108864}',
            low(64 * MIB),
        ),
        ("-M pc,memory-backend=x -object memory-backend-ram,id=x,size=256M", low(256 * MIB)),
        ("-m 64 -object memory-backend-ram,id=x,size=64 -object rng-random,id=r", low(64 * MIB)),
        ("-global kvm-pit.lost_tick_policy=delay -S -nodefaults -device virtio-net", low(128 * MIB)),
    ],
)
def test_where_the_memory_of_a_pc_is(options: str, expected: list[tuple[int, int, int]]) -> None:
    assert pieces(*options.split()) == expected


@pytest.mark.parametrize("options", ["-M virt -m 1G", "-machine virt-7.2,gic-version=3,virtualization=on -m 1G"])
def test_the_memory_of_an_aarch64_board_is_in_one_piece(options: str) -> None:
    split = split_of([ARM, *options.split()], ARM)
    assert (split.architecture, [tuple(piece) for piece in split.pieces]) == (Architecture.AARCH64, [(GIB, GIB, 0)])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("-M microvm", "machine type microvm"),
        ("-M isapc", "machine type isapc"),
        ("-M xenfv", "machine type xenfv"),
        ("-M pc-1.3", "machine type pc-1.3"),
        ("-M pc-i440fx-1.7", "machine type pc-i440fx-1.7"),
        ("-M pc-q35-2.3", "machine type pc-q35-2.3"),
        ("-M pc-i440fx-rhel7.6.0", "machine type pc-i440fx-rhel7.6.0"),
        ("-M virt", "machine type virt"),
        ("-M pc,max-ram-below-4g=1G", "max-ram-below-4g"),
        ("-M pc -machine memory.size=1G", "property memory.size"),
        ("-M q35,cxl=on", "property cxl"),
        ("-M q35,sgx-epc.0.memdev=m", "property sgx-epc.0.memdev"),
        ("-M q35,confidential-guest-support=sev0", "encrypted"),
        ("-M pc,memory-encryption=sev0", "encrypted"),
        ("-M pc,accel=xen", "accelerator xen"),
        ("-accel xen", "accelerator xen"),
        ("-accel accel=xen", "accelerator xen"),
        ("-m 512,slots=1,maxmem=1G", "plugged in"),
        ("-m 512,maxmem=512M", "plugged in"),
        ("-m 1.5X", "not a plain size"),
        ("-m 0", "not a plain size"),
        ("-m -512", "not a plain size"),
        ("-m 512,x=1", "not a plain size"),
        ("-m 1T", "AMD"),
        ("-numa node", "NUMA"),
        ("-m 64 -object memory-backend-ram,id=x,size=64M", "backend x may"),
        ("-m 64 -object memory-backend-ram,id=x,size=67108864", "backend x may"),
        ("-m 64 -object memory-backend-ram,id=x,size=0x4000000", "backend x may"),
        (
            '-m 64 -object {"qom-type":"memory-backend-ram","id":"x","size":67108864}',
            "backend x may",
        ),
        ("-M pc,memory-backend=x", "memory-backend=x is not told"),
        ("-M pc,memory-backend=x -object memory-backend-ram,id=x", "memory-backend=x is not told"),
        ("-M pc,memory-backend=x -object memory-backend-ram,id=x,size=0x100", "memory-backend=x is not told"),
        ("-m 64 -M pc,memory-backend=x -object memory-backend-ram,id=x,size=128M", "not of one size"),
        ("-incoming defer", "-incoming"),
        ("-readconfig file", "-readconfig"),
        ("-set device.x.y=z", "-set"),
        ("-preconfig", "-preconfig"),
        ("-global q35-pcihost.pci-hole64-size=1T", "-global"),
        ("-global driver=mch,property=x,value=y", "-global"),
        ("-xen-domid 1", "-xen-domid"),
        ("-unheard-of", "-unheard-of"),
    ],
)
def test_what_is_not_certain_is_told(options: str, reason: str) -> None:
    with pytest.raises(UncertainError, match=reason):
        pieces(*options.split())


@pytest.mark.parametrize("program", ["qemu-kvm", "kvm", "qemu"])
def test_the_default_machine_of_distributions_is_not_known(program: str) -> None:
    with pytest.raises(UncertainError, match="no -machine"):
        pieces("-m", "512", program=program)
    assert pieces("-m", "512", "-M", "q35", program=program) == low(512 * MIB)


@pytest.mark.parametrize("program", ["qemu-system-riscv64", "qemu-system-arm", "qemu-system-ppc64", "vm-runner"])
def test_other_programs_have_machines_of_their_own(program: str) -> None:
    for options in ((), ("-M", "virt"), ("-M", "pc")):
        with pytest.raises(UncertainError, match=f"the layout of {program}'s machine"):
            pieces(*options, program=program)


# ------------------------------------------------------------------------------------------------------- by the process


@pytest.fixture
def simulators(tmp_path: Path) -> Iterator[VmmSimulators]:
    with VmmSimulators(tmp_path) as found:
        yield found


def lone(simulators: VmmSimulators, mappings: str = f"private:{SIZE:x}", *options: str) -> tuple[str, int]:
    """Start one with 48 MiB; its name and process id."""
    name = f"lone-{os.getpid()}-{next(_numbers)}"
    options = ("-name", name, "-m", "48M", *options)
    return name, simulators.start(X86, mappings, *options).pid


@pytest.mark.parametrize("kind", ["private", "memfd", "file"])
def test_the_memory_of_a_machine_without_a_monitor(simulators: VmmSimulators, kind: str) -> None:
    name, pid = lone(simulators, f"{kind}:{SIZE:x}")
    for text in (name, pid):
        with Microvmi(str(text), driver="qemu") as machine:
            assert list(machine.memory_map()) == [MemoryRange(0, HOLE[0]), MemoryRange(HOLE[1], SIZE - HOLE[1])]
            assert machine.max_addr == SIZE
            content = bytearray(SIZE)
            machine.read_physical_padded_into(0, content)
            expected = bytearray(numbered(0, SIZE))
            expected[slice(*HOLE)] = bytes(HOLE[1] - HOLE[0])
            assert content == expected


@pytest.mark.parametrize("kind", ["private", "memfd"])
def test_memory_of_a_machine_without_a_monitor_is_written(simulators: VmmSimulators, kind: str) -> None:
    name, _ = lone(simulators, f"{kind}:{SIZE:x}")
    with Microvmi(name) as machine, Microvmi(name, driver="qemu", mapped="no") as other:
        machine.write_physical(0x200001, b"written")
        assert other.read_physical(0x200000, 8) == b"\x20written"
        assert (Ability.MAP in machine.abilities.can, Ability.MAP in other.abilities.can) == (kind == "memfd", False)


def test_what_takes_a_monitor_is_not_supported_and_the_way_out_is_told(simulators: VmmSimulators) -> None:
    name, _ = lone(simulators)
    with Microvmi(name, driver="qemu") as machine:
        can = machine.abilities.can
        assert can == Ability.READ | Ability.WRITE | Ability.MEMORY_MAP | Ability.VIRTUAL
        for call in (machine.pause, machine.resume, machine.vcpu_count, machine.read_registers, machine.read_states):
            with pytest.raises(NotSupportedError, match=r"start QEMU with -qmp unix:.*, or run it by libvirt"):
                call()


def test_the_end_of_a_machine_without_a_monitor_is_noticed(simulators: VmmSimulators, tmp_path: Path) -> None:
    name = f"ends-{os.getpid()}"
    process = simulators.start(X86, f"private:{SIZE:x}", "-name", name, "-m", "48M")
    with Microvmi(name, driver="qemu") as machine:
        process.kill()
        process.wait()
        for call in (lambda: machine.read_physical(0, 8), machine.memory_map):
            with pytest.raises(VmGoneError):
                call()


def test_memory_that_is_gone_is_told(simulators: VmmSimulators) -> None:
    name = f"lost-{os.getpid()}"
    process = simulators.start(X86, f"private:{SIZE:x}", "-name", name, "-m", "48M")
    with Microvmi(name, driver="qemu") as machine:
        process.send_signal(signal.SIGUSR1)
        assert process.stdout is not None
        assert process.stdout.readline() == "lost\n"
        for call in (lambda: machine.read_physical(0, 8), machine.memory_map):
            with pytest.raises(IoError):
                call()


@pytest.mark.parametrize(
    ("mappings", "reason"),
    [
        (f"private:{SIZE:x} private:{SIZE:x}", "has 2 mappings of the size"),
        (f"private:{SIZE:x} memfd:{SIZE:x}", "has 2 mappings of the size"),
        (f"private:{SIZE // 2:x} private:{SIZE // 2:x}", "has no mapping of the size"),
        (f"loose:private:{SIZE:x}", "not followed by a page of no access"),
    ],
)
def test_a_process_whose_memory_cannot_be_told_is_refused(
    simulators: VmmSimulators, mappings: str, reason: str
) -> None:
    name, pid = lone(simulators, mappings)
    told = rf"{name} \(pid {pid}\) .*not certain.*{reason}.*; start QEMU with -qmp"
    with pytest.raises(DriverUnavailableError, match=told):
        Microvmi(name, driver="qemu")


@pytest.mark.parametrize(
    "options",
    ["-mem-path /dev/hugepages", f"-M pc,memory-backend=x -object memory-backend-memfd,id=x,size={SIZE}"],
)
def test_memory_in_a_file_is_not_taken_from_elsewhere(simulators: VmmSimulators, options: str) -> None:
    name, _ = lone(simulators, f"private:{SIZE:x}", *options.split())
    with pytest.raises(DriverUnavailableError, match="is in a file, and what its process has of that size is in none"):
        Microvmi(name, driver="qemu")
    name, _ = lone(simulators, f"memfd:{SIZE:x}", *options.split())
    with Microvmi(name, driver="qemu") as machine:
        assert machine.max_addr == SIZE


def test_a_machine_of_a_layout_that_is_not_certain_is_refused(simulators: VmmSimulators) -> None:
    name, _ = lone(simulators, f"private:{SIZE:x}", "-numa", "node")
    with pytest.raises(DriverUnavailableError, match="NUMA nodes"):
        Microvmi(name, driver="qemu")


def test_without_a_monitor_takes_no_socket_of_a_monitor() -> None:
    with pytest.raises(InvalidArgumentError, match="monitor=no takes a VM name parameter"):
        Microvmi("any", driver="qemu", monitor="no", qmp="/run/q")
    with pytest.raises(InvalidArgumentError, match="monitor=no takes a VM name parameter"):
        Microvmi(driver="qemu", monitor="no")
    with pytest.raises(InvalidArgumentError, match="monitor=maybe: yes or no"):
        Microvmi("any", driver="qemu", monitor="maybe")


def test_a_pid_of_a_program_that_is_no_qemu_is_none(simulators: VmmSimulators) -> None:
    process = simulators.start("other-program", f"private:{SIZE:x}", "-name", "x", "-m", "48M")
    with pytest.raises(InvalidArgumentError, match="is no QEMU"):
        Microvmi(str(process.pid), driver="qemu", monitor="no")


def test_machines_without_a_monitor_are_listed_with_what_they_can(simulators: VmmSimulators) -> None:
    name, pid = lone(simulators)
    other, refused = lone(simulators, f"private:{SIZE:x}", "-numa", "node")
    found = {machine.name: machine for machine in list_vms("qemu")}
    assert (found[name].process_id, found[name].memory, found[name].state) == (pid, SIZE, MachineState.UNKNOWN)
    assert "start QEMU with -qmp unix:" in found[name].reason
    with Microvmi.open(found[name].uri) as machine:
        assert machine.abilities.can == found[name].abilities
    assert (found[other].process_id, found[other].abilities) == (refused, Ability(0))
    with pytest.raises(DriverUnavailableError) as caught:
        Microvmi.open(found[other].uri)
    assert found[other].reason == str(caught.value)


def test_a_machine_that_was_listed_opens_without_its_monitor_by_its_process(simulators: VmmSimulators) -> None:
    _, pid = lone(simulators)
    found = Process.find(pid)
    assert found is not None
    uri = f"vmi://qemu/?vm_name={pid}&monitor=no&started="
    with Microvmi.open(f"{uri}{found.start_time}") as machine:
        assert machine.max_addr == SIZE
    with pytest.raises(InvalidArgumentError, match="ended: list them anew"):
        Microvmi.open(f"{uri}{found.start_time + 1}")
