# SPDX-License-Identifier: Apache-2.0
"""Registers of a machine through the driver, read and written, against a program that looks like QEMU."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from drivers.qemu.device_states import vcpu
from drivers.qemu_with_monitor import QemuWithMonitor, qemu_with_monitor

from libmicrovmi_py import Microvmi
from libmicrovmi_py.arch.x86.registers import X86Registers
from libmicrovmi_py.errors import (
    DriverUnavailableError,
    InvalidArgumentError,
    IoError,
    MicrovmiError,
    NotSupportedError,
    TimeoutExpiredError,
)

FIRST, SECOND = {**vcpu(0), "rax": 0xAB00}, {**vcpu(1), "rax": 0xAB04}
ONLY_SAVED = {"star", "lstar", "cstar", "fmask", "kernel_gs_base", "sysenter_cs", "sysenter_esp", "sysenter_eip"} | {
    *("tsc_aux", "xcr0", "apic_base", "cr8")
}
PRINTED = {name: value for name, value in FIRST.items() if name not in ONLY_SAVED}


@pytest.fixture
def options() -> tuple[str, ...]:
    return ()


@pytest.fixture
def machine(tmp_path: Path, options: tuple[str, ...]) -> Iterator[QemuWithMonitor]:
    with qemu_with_monitor(tmp_path, *options) as running:
        yield running


@pytest.fixture
def vm(machine: QemuWithMonitor) -> Iterator[Microvmi]:
    with Microvmi.open(machine.uri) as opened:
        yield opened


@pytest.fixture
def paused(vm: Microvmi) -> Microvmi:
    vm.pause()
    return vm


def fake(*what: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("options", [tuple(part for each in what for part in ("-fake", each))])


# -------------------------------------------------------------------------------------------------------------- reading


def test_all_registers_of_all_vcpus_are_read_at_once(machine: QemuWithMonitor, vm: Microvmi) -> None:
    assert [dict(state) for state in vm.read_states()] == [FIRST, SECOND]
    assert machine.execute("play-count")["saved"] == 1


@pytest.mark.parametrize("stands", [False, True])
def test_all_registers_of_one_vcpu_are_read(machine: QemuWithMonitor, vm: Microvmi, stands: bool) -> None:
    if stands:
        vm.pause()
    assert dict(vm.read_state(1)) == SECOND
    assert machine.status() == ("paused" if stands else "running")


def test_the_struct_that_does_not_grow_stops_no_machine(machine: QemuWithMonitor, vm: Microvmi) -> None:
    registers = vm.read_registers(0)
    assert isinstance(registers, X86Registers)
    assert (registers.rip, registers.msr_lstar) == (FIRST["rip"], 0)
    assert machine.execute("play-count")["saved"] == 0


def test_an_address_space_by_a_vcpu_stops_no_machine(machine: QemuWithMonitor, vm: Microvmi) -> None:
    vm.address_space(vcpu=1)
    assert machine.execute("play-count")["saved"] == 0


def test_the_struct_that_does_not_grow_has_all_of_a_machine_that_stands(paused: Microvmi) -> None:
    registers = paused.read_registers(1)
    assert isinstance(registers, X86Registers)
    assert registers.msr_lstar == SECOND["lstar"]


@pytest.mark.parametrize("options", [("-fake", f"state={how}") for how in ("garbage", "stale", "version")])
def test_a_state_that_is_not_understood_leaves_what_the_monitor_prints(vm: Microvmi) -> None:
    assert dict(vm.read_state(0)) == PRINTED


@pytest.mark.parametrize("command", ["add-fd", "xen-save-devices-state", "query-fdsets"])
def test_a_state_that_qemu_refuses_leaves_what_the_monitor_prints(tmp_path: Path, command: str) -> None:
    with qemu_with_monitor(tmp_path, "-fake", f"refuse={command}") as machine, Microvmi.open(machine.uri) as vm:
        vm.pause()
        expected = FIRST if command == "query-fdsets" else PRINTED
        assert dict(vm.read_state(0)) == expected
        assert machine.status() == "paused"


@pytest.mark.parametrize(
    ("reasons", "told"),
    [
        ('["a disk of this kind", "a device of that\\nkind"]', r"a disk of this kind; a device of that\\+nkind"),
        ("[]", ""),
        ("[7]", ""),
        ("5", ""),
    ],
)
@fake("refuse=xen-save-devices-state")
def test_a_register_that_qemu_does_not_save_says_why(
    machine: QemuWithMonitor, paused: Microvmi, reasons: str, told: str
) -> None:
    machine.execute("play-answer", to="query-migrate", answer=f'{{"blocked-reasons": {reasons}}}')
    state = paused.read_state(0)
    why = "lstar is not known: QEMU refused xen-save-devices-state: not now"
    with pytest.raises(KeyError, match=why + (rf" \(migrations are blocked: {told}\)" if told else "'$")):
        state["lstar"]
    assert dict(state) == PRINTED


@pytest.mark.parametrize(
    ("question", "answer", "why"),
    [
        (
            "query-migrate",
            {"blocked-reasons": ["a disk", "non-migratable device: a/b"]},
            r".*\(non-migratable device: a/b\)",
        ),
        ("query-version", {"qemu": {"major": 5, "minor": 2, "micro": 0}}, "QEMU before 6.0"),
    ],
)
def test_a_state_whose_saving_might_end_qemu_is_not_asked_for(
    machine: QemuWithMonitor, paused: Microvmi, question: str, answer: dict[str, Any], why: str
) -> None:
    machine.execute("play-answer", to=question, answer=json.dumps(answer))
    state = paused.read_state(0)
    with pytest.raises(KeyError, match=f"lstar is not known: {why}"):
        state["lstar"]
    assert dict(state) == PRINTED


@pytest.mark.parametrize("options", [("-fake", f"state={how}") for how in ("stale", "version")])
def test_a_register_of_a_state_that_is_not_believed_says_so(vm: Microvmi) -> None:
    with pytest.raises(KeyError, match="lstar is not known: what QEMU saves of this vCPU"):
        vm.read_state(0)["lstar"]


def test_a_register_of_a_machine_that_is_being_saved_says_so(machine: QemuWithMonitor, vm: Microvmi) -> None:
    machine.execute("play-state", status="save-vm")
    with pytest.raises(KeyError, match="lstar is not known: QEMU's devices are not asked"):
        vm.read_state(0)["lstar"]
    machine.execute("play-state", status="running")
    assert vm.read_state(0)["lstar"] == FIRST["lstar"]


@pytest.mark.parametrize("state", ["suspended", "io-error", "save-vm", "inmigrate"])
def test_a_machine_that_must_not_be_stopped_for_it_is_not(machine: QemuWithMonitor, vm: Microvmi, state: str) -> None:
    machine.execute("play-state", status=state)
    vm.read_state(0)
    assert machine.execute("play-count")["saved"] == (1 if state == "io-error" else 0)
    machine.execute("play-state", status="running")


def test_no_state_is_saved_during_a_migration(machine: QemuWithMonitor, vm: Microvmi) -> None:
    machine.execute("play-answer", to="query-migrate", answer='{"status": "active"}')
    assert dict(vm.read_state(0)) == PRINTED
    assert machine.execute("play-count")["saved"] == 0


def test_a_vcpu_that_there_is_not_is_told(vm: Microvmi) -> None:
    for number in (-1, 2):
        with pytest.raises(InvalidArgumentError, match="has 2"):
            vm.read_state(number)


@pytest.mark.parametrize("target", ["riscv64", "arm", ""])
def test_vcpus_of_which_nothing_is_known_are_told(machine: QemuWithMonitor, vm: Microvmi, target: str) -> None:
    machine.execute("play-answer", to="query-cpus-fast", answer=f'[{{"cpu-index": 0, "target": "{target}"}}]')
    assert vm.vcpu_count() == 1
    with pytest.raises(NotSupportedError, match="architecture"):
        vm.read_state(0)


def test_what_qemu_holds_of_ours_is_one_set_while_the_machine_stands(machine: QemuWithMonitor, vm: Microvmi) -> None:
    vm.read_state(0)
    assert machine.execute("play-count")["sets"] == 0
    vm.pause()
    for _ in range(3):
        assert dict(vm.read_state(0)) == FIRST
    assert machine.execute("play-count") == {"saved": 4, "sets": 1, "devices": 0}
    vm.resume()
    assert machine.execute("play-count")["sets"] == 0


def test_what_qemu_holds_of_ours_is_taken_back_at_the_end(machine: QemuWithMonitor) -> None:
    machine.execute("play-state", status="paused")
    with Microvmi.open(machine.uri) as vm:
        vm.read_state(0)
        assert machine.execute("play-count")["sets"] == 1
    assert machine.execute("play-count")["sets"] == 0
    assert machine.status() == "paused"


def test_a_set_that_is_gone_is_made_anew(machine: QemuWithMonitor, paused: Microvmi) -> None:
    paused.read_state(0)
    (fdset,) = machine.execute("query-fdsets")
    machine.execute("remove-fd", **{"fdset-id": fdset["fdset-id"]})
    assert dict(paused.read_state(0)) == FIRST


def test_reading_keeps_no_descriptors(paused: Microvmi) -> None:
    paused.read_state(0)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        paused.read_states()
        paused.write_state({"rbx": 7})
    assert len(os.listdir("/proc/self/fd")) == before


# -------------------------------------------------------------------------------------------------------------- writing


def test_what_is_written_is_read_back(machine: QemuWithMonitor, paused: Microvmi) -> None:
    values = {"rax": 1, "r15": 2, "rip": 3, "rflags": 0x202, "cr3": 0x1000, "cr8": 5, "efer": 0x500, "fs_base": 4}
    values |= {"kernel_gs_base": 6, "cs_selector": 0x33, "cr0": 0x80000011, "cr4": 0x20}
    paused.write_state(values, 1)
    assert dict(paused.read_state(1)) == {**SECOND, **values}
    assert dict(paused.read_state(0)) == FIRST
    assert machine.status() == "paused"
    assert machine.execute("play-count")["devices"] == 0


def test_what_the_stub_cannot_write_is_named_before_anything_is_written(paused: Microvmi) -> None:
    with pytest.raises(NotSupportedError, match="lstar, gdt_base"):
        paused.write_state({"rbx": 1, "lstar": 2, "gdt_base": 3})
    assert dict(paused.read_state(0)) == FIRST


def test_the_machine_has_to_stand(machine: QemuWithMonitor, vm: Microvmi) -> None:
    for values in ({"rbx": 1}, {}):
        with pytest.raises(DriverUnavailableError, match="pause it"):
            vm.write_state(values)
    assert machine.execute("play-count")["devices"] == 0


@fake("gdb=gdb")
def test_a_stub_of_somebody_else_is_left_alone(machine: QemuWithMonitor, paused: Microvmi) -> None:
    for values in ({"rbx": 1}, {}):
        with pytest.raises(DriverUnavailableError, match=r"somebody else's .gdb: disconnected:tcp"):
            paused.write_state(values)
    assert machine.execute("play-count")["devices"] == 1


@pytest.mark.parametrize("options", [("-gdb", "chardev:mine", "-fake", "gdb=mine")])
def test_a_stub_of_another_name_is_left_alone(machine: QemuWithMonitor, paused: Microvmi) -> None:
    with pytest.raises(DriverUnavailableError, match="mine"):
        paused.write_state({"rbx": 1})
    assert machine.execute("play-count")["devices"] == 1


def test_what_a_killed_program_left_is_removed(machine: QemuWithMonitor, paused: Microvmi) -> None:
    machine.execute("play-chardev", label="microvmi-stub", filename="disconnected:fd:microvmi-stub")
    paused.write_state({"rbx": 1})
    assert paused.read_state(0)["rbx"] == 1
    assert machine.execute("play-count")["devices"] == 0


def test_two_programs_do_not_write_at_once(machine: QemuWithMonitor, paused: Microvmi) -> None:
    machine.execute("play-chardev", label="microvmi-stub", filename="unix:")
    with pytest.raises(DriverUnavailableError, match="another program"):
        paused.write_state({"rbx": 1})
    assert machine.execute("play-count")["devices"] == 1


@fake("stub=keeps")
def test_a_value_that_the_vcpu_does_not_take_is_named_and_the_others_taken_back(paused: Microvmi) -> None:
    with pytest.raises(NotSupportedError, match=r"^cr4: "):
        paused.write_state({"rbx": 1, "cr4": 0x10})
    assert dict(paused.read_state(0)) == FIRST


@fake("stub=refuses")
def test_what_was_written_before_an_error_of_the_stub_is_taken_back(paused: Microvmi) -> None:
    with pytest.raises(IoError, match="E14"):
        paused.write_state({"rbx": 1, "cr8": 5})
    assert dict(paused.read_state(0)) == FIRST


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("-fake", "stub=closed"), IoError),
        (("-fake", "stub=hangs-up"), IoError),
        (("-fake", "stub=garbage"), IoError),
        (("-fake", "stub=another"), IoError),
        (("-fake", "refuse=chardev-add"), IoError),
        (("-fake", "refuse=getfd"), IoError),
        (("-fake", "stub=deaf"), TimeoutExpiredError),
    ],
)
def test_a_stub_in_trouble_is_told_and_ended(
    machine: QemuWithMonitor, paused: Microvmi, error: type[MicrovmiError]
) -> None:
    with pytest.raises(error):
        paused.write_state({"rbx": 1})
    assert dict(paused.read_state(0)) == FIRST
    assert machine.execute("play-count")["devices"] == 0
    assert machine.status() == "paused"


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (("-fake", f"stub=run-{when}{stopped}"), "paused" if stopped else "running")
        for when in ("before", "within", "after")
        for stopped in ("", "-stopped")
    ]
    + [(("-fake", "stub=run-attached"), "running")],
)
def test_what_others_do_with_the_machine_meanwhile_counts(
    machine: QemuWithMonitor, paused: Microvmi, status: str
) -> None:
    began = time.monotonic()
    with pytest.raises(DriverUnavailableError, match="somebody else let the machine run"):
        paused.write_state({"rbx": 1, "rcx": 2})
    assert time.monotonic() - began < 1.0  # a part of the time limit is 2.5 s
    assert machine.status() == status
    assert machine.execute("play-count")["devices"] == 0


@fake("stub=run-within")
def test_nothing_is_put_back_into_a_machine_that_ran_on(paused: Microvmi) -> None:
    with pytest.raises(DriverUnavailableError):
        paused.write_state({"rbx": 1, "rcx": 2})
    state = paused.read_state(0)
    assert (state["rbx"], state["rcx"]) == (1, FIRST["rcx"])
