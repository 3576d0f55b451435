# SPDX-License-Identifier: Apache-2.0
"""Registers of real QEMUs: as the guest itself reads them, and as the guest sees them once they were written."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from needs import missing

from libmicrovmi_py import Microvmi
from libmicrovmi_py.arch.aarch64.registers import Aarch64Registers
from libmicrovmi_py.arch.x86.registers import STATE
from libmicrovmi_py.drivers.qemu import stub
from libmicrovmi_py.errors import DriverUnavailableError, IoError, NotSupportedError

from .firmware import need_qemu
from .registers_guest import (
    AARCH64,
    AARCH64_RAM,
    AARCH64_STACK,
    DONE,
    MSRS,
    OTHERS,
    READ_BACK,
    SEEN,
    set_aarch64_registers,
    set_registers,
)
from .tiny import GO, Tiny, tiny, wait_for

VCPUS = 3


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    """An x86 guest whose first vCPU has set its registers, and runs."""
    need_qemu()
    options = ("-smp", f"{VCPUS},cores={VCPUS}")
    with tiny(tmp_path_factory.mktemp("registers"), set_registers(), options, debugger=False) as guest:
        with Microvmi.open(guest.uri) as vm:
            write(vm, GO, b"\1")
            wait_for(lambda: read(vm, DONE, 1) == b"\1", "registers that are set")
        yield guest


@pytest.fixture
def vm(machine: Tiny) -> Iterator[Microvmi]:
    with Microvmi.open(machine.uri) as opened:
        yield opened


def read(vm: Microvmi, address: int, size: int) -> bytes:
    vm.padded_memory.seek(address)
    return bytes(vm.padded_memory.read(size) or b"")


def write(vm: Microvmi, address: int, data: bytes) -> None:
    vm.memory.seek(address)
    vm.memory.write(data)


def word(vm: Microvmi, address: int) -> int:
    return int.from_bytes(read(vm, address, 8), "little")


@pytest.mark.parametrize("stands", [True, False])
def test_msrs_are_what_rdmsr_tells_the_guest(vm: Microvmi, machine: Tiny, stands: bool) -> None:
    if stands:
        vm.pause()
    state = vm.read_state(0)
    for place, (name, value) in enumerate(MSRS.values()):
        assert (name, state[name]) == (name, word(vm, READ_BACK + 8 * place)) == (name, value)
    assert {name: state[name] for name in OTHERS} == OTHERS
    assert set(state) == set(STATE)
    assert (state["cs_attributes"], state["ss_attributes"] & 0x0F) == (0xA9B, 3)
    assert machine.status() == ("paused" if stands else "running")


def test_all_vcpus_are_told_at_once(vm: Microvmi) -> None:
    first, *others = vm.read_states()
    assert len(others) == VCPUS - 1
    assert all(set(state) == set(STATE) for state in others)
    assert [state["apic_base"] for state in (first, *others)] == [0xFEE00900] + [0xFEE00800] * (VCPUS - 1)
    assert first["lstar"] != others[0]["lstar"] == 0


def test_a_machine_that_stands_keeps_standing(vm: Microvmi, machine: Tiny) -> None:
    vm.pause()
    before = vm.read_states()
    assert vm.read_states() == before
    assert machine.status() == "paused"
    vm.resume()
    assert machine.monitor.execute("query-fdsets") == []


def test_reading_a_machine_that_stands_again_and_again_takes_no_descriptors_of_qemu(
    vm: Microvmi, machine: Tiny
) -> None:
    vm.pause()
    vm.read_states()
    folder = Path(f"/proc/{machine.process.pid}/fd")
    before = len(list(folder.iterdir()))
    for _ in range(10):
        vm.read_states()
        vm.write_state({"rbx": 1})
    assert len(list(folder.iterdir())) <= before + 1


def test_a_register_that_is_written_is_seen_by_qemu_and_by_the_guest(vm: Microvmi, machine: Tiny) -> None:
    vm.pause()
    before = vm.read_state(0)
    values = {"rbx": 0x1234_5678_9ABC_DEF0, "cr2": 0x5000, "cr8": 3, "fs_base": 0x7F00_0000_5000, "rflags": 0x203}
    values |= {"kernel_gs_base": 0xFFFF_8880_1234_5000, "cr4": before["cr4"] | 0x80}
    vm.write_state(values, 0)
    assert dict(vm.read_state(0)) == {**before, **values}
    text = machine.monitor.human("info registers")
    assert "RBX=123456789abcdef0" in text
    assert re.search(r"CR2=0*5000 ", text)
    assert machine.status() == "paused"
    vm.resume()
    wait_for(lambda: word(vm, SEEN) == values["rbx"], "the register in the guest")
    vm.pause()
    vm.write_state({name: before[name] for name in values if name != "rflags"}, 0)


def test_one_vcpu_is_written_and_no_other(vm: Microvmi) -> None:
    vm.pause()
    before = vm.read_states()
    vm.write_state({"rbx": 0x77}, 2)
    after = vm.read_states()
    assert after[:2] == before[:2]
    assert dict(after[2]) == {**before[2], "rbx": 0x77}


def test_what_cannot_be_written_is_named_and_nothing_is_written(vm: Microvmi) -> None:
    vm.pause()
    before = vm.read_states()
    for values, named in (({"rbx": 5, "lstar": 1}, "lstar"), ({"rbx": 5, "cr4": 1 << 40}, "cr4")):
        with pytest.raises(NotSupportedError, match=named):
            vm.write_state(values, 0)
    assert vm.read_states() == before


DATA = 0x10
"""The selector of the guest's data segment, whose base is 0."""


def test_a_base_counts_that_is_written_with_its_selector(vm: Microvmi) -> None:
    vm.pause()
    before = vm.read_state(0)
    other = DATA if before["fs_selector"] != DATA else 0
    for base in (0x7F00_0000_6000, 0x7F00_0000_7000):
        vm.write_state({"fs_base": base, "fs_selector": other}, 0)
        assert (vm.read_state(0)["fs_base"], vm.read_state(0)["fs_selector"]) == (base, other)
        vm.write_state({"fs_base": base, "fs_selector": before["fs_selector"]}, 0)
        assert vm.read_state(0)["fs_base"] == base
    vm.write_state({"fs_base": before["fs_base"]}, 0)


@pytest.mark.parametrize("bad", [{"cr4": 1 << 40}, {"ds_selector": 0x7FF8}])
def test_a_segment_keeps_its_base_if_another_value_is_not_taken(vm: Microvmi, bad: dict[str, int]) -> None:
    vm.pause()
    kept = vm.read_state(0)["fs_base"]
    vm.write_state({"fs_base": 0x7F00_0000_5000}, 0)
    before = vm.read_state(0)
    other = DATA if before["fs_selector"] != DATA else 0
    with pytest.raises(NotSupportedError, match=f"^{next(iter(bad))}: "):
        vm.write_state({"fs_selector": other, **bad}, 0)
    after = vm.read_state(0)
    assert after["fs_base"] == before["fs_base"]
    assert after["fs_selector"] == before["fs_selector"]
    vm.write_state({"fs_base": kept}, 0)


def test_the_machine_has_to_stand_to_be_written(vm: Microvmi, machine: Tiny) -> None:
    with pytest.raises(DriverUnavailableError, match="pause it"):
        vm.write_state({"rbx": 1})
    assert machine.status() == "running"


def test_nothing_of_a_write_is_left_in_qemu(vm: Microvmi, machine: Tiny) -> None:
    vm.pause()
    vm.write_state({"rbx": 1})
    labels = {item["label"] for item in machine.monitor.execute("query-chardev")}
    assert not [label for label in labels if "microvmi" in label]
    vm.resume()
    assert machine.status() == "running"


def let_run(vm: Microvmi, machine: Tiny, *, connected: bool, stopped: bool = False) -> None:
    """Somebody lets the machine run just before the stub is opened, or while it is open, and may stop it again."""
    with vm.driver._session() as client:  # type: ignore[attr-defined]
        if not connected:
            machine.monitor.execute("cont")
        with stub.opened(client, ()) as rsp:
            if connected:
                machine.monitor.execute("cont")
            if stopped:
                machine.monitor.execute("stop")
            rsp.order("Hg1")


@pytest.mark.parametrize("connected", [False, True])
def test_a_machine_that_others_let_run_meanwhile_is_not_left_stopped(
    vm: Microvmi, machine: Tiny, connected: bool
) -> None:
    vm.pause()
    began = time.monotonic()
    with pytest.raises(DriverUnavailableError, match="somebody else let the machine run"):
        let_run(vm, machine, connected=connected)
    assert time.monotonic() - began < 1.0  # a part of the time limit is 2.5 s
    assert machine.status() == "running"
    vm.resume()


def test_a_stop_of_others_is_not_taken_back(vm: Microvmi, machine: Tiny) -> None:
    vm.pause()
    with pytest.raises(DriverUnavailableError, match="somebody else let the machine run"):
        let_run(vm, machine, connected=True, stopped=True)
    assert machine.status() == "paused"
    assert not [each for each in machine.monitor.execute("query-chardev") if "microvmi" in each["label"]]
    machine.monitor.execute("cont")


def test_the_machine_runs_on_whenever_others_let_it_run(vm: Microvmi, machine: Tiny) -> None:
    """Whatever moment of a write they find."""
    refused = 0
    for number in range(24):
        vm.pause()
        cont = threading.Timer(0.0005 * number, machine.monitor.execute, ("cont",))
        cont.start()
        try:
            vm.write_state({"rbx": number, "rcx": number, "rdx": number, "rsi": number})
        except (DriverUnavailableError, IoError):
            refused += 1
        cont.join()
        assert machine.status() == "running"
    assert refused


def test_a_character_device_that_a_killed_program_had_just_made_is_removed(vm: Microvmi) -> None:
    vm.pause()
    ours, theirs = socket.socketpair()
    with vm.driver._session() as client, theirs:  # type: ignore[attr-defined]
        client.hand_over(theirs.fileno(), "getfd", fdname="microvmi-stub").result()
        data = {"addr": {"type": "fd", "data": {"str": "microvmi-stub"}}, "server": False}
        client.execute("chardev-add", id="microvmi-stub", backend={"type": "socket", "data": data})
    with pytest.raises(DriverUnavailableError, match="another program"):
        vm.write_state({"rbx": 0x4545})
    ours.close()
    vm.write_state({"rbx": 0x4545})
    assert vm.read_state(0)["rbx"] == 0x4545


def test_a_stub_that_the_user_opens_meanwhile_is_his(vm: Microvmi, machine: Tiny, tmp_path: Path) -> None:
    vm.pause()
    with vm.driver._session() as client, stub.opened(client, ()):  # type: ignore[attr-defined]
        machine.monitor.human(f"gdbserver unix:{tmp_path}/stub,server=on,wait=off")
    labels = {item["label"] for item in machine.monitor.execute("query-chardev")}
    machine.monitor.human("gdbserver none")
    assert "gdb" in labels


_KILLED = """
import sys
sys.path.insert(0, sys.argv[1])
from libmicrovmi_py import Microvmi
vm = Microvmi.open(sys.argv[2])
from libmicrovmi_py.drivers.qemu import stub
with vm.driver._session() as client, stub.opened(client, ()) as rsp:
    rsp.order("Hg1")
    rsp.write_register(stub.registers(rsp)["rbx"].number, 0x4242, 8)
    print("in the middle", flush=True)
    sys.stdin.read()
"""


def test_a_program_that_is_killed_with_the_stub_open_leaves_nothing_that_stops_the_guest(
    vm: Microvmi, machine: Tiny
) -> None:
    vm.pause()
    command = [sys.executable, "-c", _KILLED, str(Path(__file__).parents[2]), machine.uri]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "in the middle\n"
        child.send_signal(signal.SIGKILL)
    assert vm.read_state(0)["rbx"] == 0x4242
    vm.resume()
    wait_for(lambda: word(vm, SEEN) == 0x4242, "the register in the guest")
    assert machine.status() == "running"
    vm.pause()
    vm.write_state({"rbx": 0x4343})
    assert vm.read_state(0)["rbx"] == 0x4343


def test_a_debugger_of_the_user_keeps_the_stub(tmp_path: Path) -> None:
    need_qemu()
    with tiny(tmp_path) as guest, Microvmi.open(guest.uri) as vm:
        vm.pause()
        with pytest.raises(DriverUnavailableError, match="somebody else's"):
            vm.write_state({"rbx": 1})
        assert "gdb" in {item["label"] for item in guest.monitor.execute("query-chardev")}


# ------------------------------------------------------------------------------------------------------------ AArch64


@pytest.fixture(scope="module")
def aarch64(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    """An AArch64 guest that has set its registers, and runs."""
    program = shutil.which("qemu-system-aarch64")
    if not program:
        missing("qemu-system-aarch64 is not installed: apt-get install qemu-system-arm")
    folder = tmp_path_factory.mktemp("aarch64")
    image = folder / "image"
    image.write_bytes(set_aarch64_registers())
    options = ("-machine", "virt", "-cpu", "cortex-a57", "-bios", str(image), "-smp", "2")
    with tiny(folder, options=options, debugger=False, program="qemu-system-aarch64") as guest:
        with Microvmi.open(guest.uri) as vm:
            wait_for(lambda: word(vm, AARCH64_RAM) == 1, "registers that are set")
        yield guest


@pytest.fixture
def arm(aarch64: Tiny) -> Iterator[Microvmi]:
    with Microvmi.open(aarch64.uri) as opened:
        yield opened


@pytest.mark.parametrize("stands", [True, False])
def test_system_registers_are_those_that_the_guest_set(arm: Microvmi, stands: bool) -> None:
    if stands:
        arm.pause()
    state = arm.read_state(0)
    assert {name: state[name] for name in AARCH64} == AARCH64
    assert state["sctlr_el1"] == word(arm, AARCH64_RAM + 8)
    assert state["id_aa64mmfr0_el1"] == word(arm, AARCH64_RAM + 16)
    assert (state["sp_el1"], state["pstate"] & 0xF, state["x20"]) == (AARCH64_STACK, 5, AARCH64_RAM)
    assert len(arm.read_states()) == 2


def test_the_struct_that_does_not_grow_has_the_tables_of_an_aarch64_vcpu_that_runs(arm: Microvmi) -> None:
    registers = arm.read_registers(0)
    assert isinstance(registers, Aarch64Registers)
    assert (registers.ttbr0_el1, registers.ttbr1_el1) == (AARCH64["ttbr0_el1"], AARCH64["ttbr1_el1"])
    assert registers.tcr_el1 == AARCH64["tcr_el1"]


def test_an_aarch64_register_that_is_written_is_seen_by_the_guest(arm: Microvmi, aarch64: Tiny) -> None:
    arm.pause()
    before = arm.read_state(0)
    values = {"x5": 0xABCD_EF01_2345_6789, "sp_el1": 0x8000}
    arm.write_state(values, 0)
    assert dict(arm.read_state(0)) == {**before, **values}
    assert "X05=abcdef0123456789" in aarch64.monitor.human("info registers")
    arm.resume()
    wait_for(lambda: word(arm, AARCH64_RAM + 24) == values["x5"], "the register in the guest")
    arm.pause()
    arm.write_state({"sp_el1": AARCH64_STACK}, 0)


@pytest.mark.parametrize(("named", "value"), [("ttbr0_el1", 0), ("sp_el0", 0), ("pstate", 0x3C0)])
def test_what_cannot_be_written_of_an_aarch64_vcpu_is_named(arm: Microvmi, named: str, value: int) -> None:
    arm.pause()
    before = arm.read_states()
    with pytest.raises(NotSupportedError, match=named):
        arm.write_state({"x1": 1, named: value}, 0)
    assert arm.read_states() == before
