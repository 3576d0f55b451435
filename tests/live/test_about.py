# SPDX-License-Identifier: Apache-2.0
"""What the library says about a guest is what QEMU says: memory map, maximum address, vCPUs, registers."""

from __future__ import annotations

import pytest
from processors import x86_registers

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.qemu.flatview import system_view, without_owners

from . import oracle
from .capi import SEGMENTS, TABLES, Machine
from .conftest import RunProgram
from .guest import VCPUS, Guest
from .marks import on_every_guest, on_one_guest

GIB = 1 << 30
MAX_ADDRESS = {(512, "pc"): GIB // 2, (512, "q35"): GIB // 2, (5120, "pc"): 6 * GIB, (5120, "q35"): 7 * GIB}
"""The hole below 4 GiB begins at 3 GiB on pc and at 2 GiB on q35; what does not fit below goes above 4 GiB."""

NAMES = 16 + len(("rip", "rflags", "cr0", "cr2", "cr3", "cr4", "efer", "msr_efer")) + len(SEGMENTS) + len(TABLES)
"""How many registers ``info registers`` shows."""


@on_every_guest
def test_memory_map_is_the_flat_view_of_qemu(paused: Guest, vm: Machine) -> None:
    assert oracle.joined(vm.memory_map()) == oracle.memory_map(paused.monitor)


@on_every_guest
def test_whose_memory_is_stands_in_the_same_flat_view_that_is_then_told_without(paused: Guest) -> None:
    """What was asked with owners is compared with what is asked without: else everything is asked anew each time."""
    views = [system_view(paused.monitor.human(f"info mtree -f{option}")) for option in (" -o", "")]
    assert "owner:{" in views[0]
    assert without_owners(views[0]) == views[1]


@on_every_guest
def test_maximum_address_is_the_end_of_ram(guest: Guest, vm: Machine) -> None:
    assert vm.max_address() == MAX_ADDRESS[guest.config.mib, guest.config.machine]


@on_every_guest
def test_registers_of_each_vcpu_are_those_of_info_registers(paused: Guest, vm: Machine) -> None:
    expected = oracle.registers(paused.monitor)
    assert [len(values) for values in expected] == [NAMES] * VCPUS
    for vcpu, values in enumerate(expected):
        actual = vm.registers(vcpu)
        assert {name: actual[name] for name in values} == values


@on_one_guest
def test_number_of_vcpus(guest: Guest, vm: Machine) -> None:
    assert vm.vcpu_count() == VCPUS


@on_one_guest
def test_a_vcpu_too_many_is_an_error(guest: Guest, vm: Machine) -> None:
    with pytest.raises(AssertionError, match="no vCPU 2"):
        vm.registers(VCPUS)


@on_one_guest
def test_regs_dump_prints_info_registers(paused: Guest, run: RunProgram) -> None:
    ended = run("regs-dump", paused.name)
    assert (ended.returncode, ended.stderr) == (0, "")
    blocks = [dict(line.split() for line in text.splitlines()) for text in ended.stdout.split("\n\n")]
    assert [block.pop("vcpu") for block in blocks] == ["0", "1"]
    for block, values in zip(blocks, oracle.registers(paused.monitor), strict=True):
        printed = {name: int(value, 16) for name, value in block.items()}
        expected = _flat(values)
        assert {name: printed[name] for name in expected} == expected


def _flat(values: dict[str, oracle.Value]) -> dict[str, int]:
    """``cs: (1, 2, 3)`` as ``cs_base: 1, cs_limit: 2, cs_selector: 3``; EFER has one name."""
    flat: dict[str, int] = {}
    for name, value in values.items():
        if isinstance(value, int):
            flat[name.removeprefix("msr_")] = value
        else:
            flat.update(zip((f"{name}_base", f"{name}_limit", f"{name}_selector"), value, strict=False))
    return flat


@on_one_guest
def test_python_says_the_same_as_c(paused: Guest, vm: Machine) -> None:
    with Microvmi.open(paused.uri) as machine:
        assert machine.max_addr == vm.max_address()
        assert machine.vcpu_count() == VCPUS
        ranges = [oracle.Range(item.start, item.size, item.kind.name.lower()) for item in machine.memory_map()]
        assert ranges == vm.memory_map()
        for vcpu in range(VCPUS):
            registers, expected = x86_registers(machine, vcpu), vm.registers(vcpu)
            assert (registers.rip, registers.cr3, registers.rsp) == tuple(expected[n] for n in ("rip", "cr3", "rsp"))
            assert (registers.gs.base, registers.gs.limit, registers.gs.selector) == expected["gs"]
