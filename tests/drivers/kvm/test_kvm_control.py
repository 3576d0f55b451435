# SPDX-License-Identifier: Apache-2.0
"""Pause, resume and registers through the KVM driver."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from drivers.kvm import wire
from drivers.kvm.simulator import Simulator
from drivers.kvm.watching import stopped, until
from processors import x86_registers

from libmicrovmi_py import Microvmi
from libmicrovmi_py.arch.x86.registers import DEBUG, STATE
from libmicrovmi_py.errors import InvalidArgumentError, IoError, MicrovmiError, NotSupportedError, TimeoutExpiredError
from libmicrovmi_py.events import EventKind, Intercept, Reply, ReplyAction

ROUNDS = 1000


# ------------------------------------------------------------------------------------------------------------ run state


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_thousand_pauses_and_resumes(machine: Microvmi, simulator: Simulator) -> None:
    before = resident()
    for _ in range(ROUNDS):
        machine.pause()
        machine.resume()
    assert simulator.seen.count(wire.PAUSE_VCPU) == 2 * ROUNDS
    until(lambda: simulator.seen.count(wire.EVENT_REPLY) == 2 * ROUNDS)
    until(lambda: not any(stopped(simulator)))
    assert resident() - before < 8 << 20, "2000 events of libkvmi take 17 MB"


def test_a_pause_stops_every_vcpu_until_the_resume(machine: Microvmi, simulator: Simulator) -> None:
    machine.pause()
    until(lambda: all(stopped(simulator)))
    step = simulator.vcpus[1].step()
    time.sleep(0.02)
    assert not step.done()
    machine.resume()
    step.result(5)


def test_pausing_again_stops_nothing_twice(machine: Microvmi, simulator: Simulator) -> None:
    machine.pause()
    machine.pause()
    assert simulator.seen.count(wire.PAUSE_VCPU) == 2
    machine.resume()
    machine.resume()
    until(lambda: simulator.seen.count(wire.EVENT_REPLY) == 2)


def test_a_driver_that_is_told_twice_to_stop_stops_nothing_twice(machine: Microvmi, simulator: Simulator) -> None:
    """As by two contexts that share the machine, at the same moment."""
    machine.driver.stop()  # type: ignore[attr-defined]
    machine.driver.stop()  # type: ignore[attr-defined]
    assert simulator.seen.count(wire.PAUSE_VCPU) == 2
    machine.driver.run(whoever=True)  # type: ignore[attr-defined]
    until(lambda: not any(stopped(simulator)))


def test_a_resume_without_a_pause_asks_nothing(machine: Microvmi, simulator: Simulator) -> None:
    before = len(simulator.seen)
    machine.resume()
    assert len(simulator.seen) == before


def test_memory_is_read_while_paused(machine: Microvmi, simulator: Simulator) -> None:
    machine.pause()
    assert machine.read_physical(0x1FFC, 8) == bytes(simulator.frames[1][-4:] + simulator.frames[2][:4])
    machine.resume()


def test_a_machine_closed_while_paused_runs_on(machine: Microvmi, simulator: Simulator) -> None:
    machine.pause()
    machine.close()
    simulator.vcpus[0].step().result(5)
    until(lambda: simulator.seen.count(wire.EVENT_REPLY) == 2)


def test_a_vcpu_that_does_not_stop_is_told_by_the_resume(simulator: Simulator, reach: Callable[..., Microvmi]) -> None:
    machine = reach(timeout=0.3)
    simulator.meddle = lambda command, seq, body: b"" if command == wire.PAUSE_VCPU and body[0] == 1 else None
    machine.pause()
    with pytest.raises(TimeoutExpiredError, match=r"within 0\.3 s"):
        machine.resume()
    until(lambda: not any(stopped(simulator)))
    simulator.meddle = lambda command, seq, body: None
    machine.pause()
    machine.resume()


def test_a_resume_waits_for_no_vcpu_that_an_event_stops(machine: Microvmi, simulator: Simulator) -> None:
    machine.toggle_intercept(Intercept(EventKind.CR, 3))
    write = simulator.vcpus[0].write_cr(3, 0x7000)
    until(lambda: stopped(simulator)[0])
    machine.pause()
    started = time.monotonic()
    machine.resume()
    assert time.monotonic() - started < 4
    event = machine.listen(1)
    assert event is not None
    machine.reply_event(event)
    assert write.result(5) == 0x7000
    simulator.vcpus[0].step().result(5)
    assert simulator.seen.count(wire.EVENT_REPLY) == 3


def test_a_vcpu_stays_paused_whose_event_is_answered_meanwhile(machine: Microvmi, simulator: Simulator) -> None:
    machine.toggle_intercept(Intercept(EventKind.CR, 3))
    write = simulator.vcpus[0].write_cr(3, 0x7000)
    event = machine.listen(1)
    assert event is not None
    machine.pause()
    machine.reply_event(event)
    assert write.result(5) == 0x7000
    step = simulator.vcpus[0].step()
    time.sleep(0.02)
    assert not step.done()
    machine.resume()
    step.result(5)


def test_after_a_pause_that_failed_the_vcpus_run(machine: Microvmi, simulator: Simulator) -> None:
    def refuse_the_last(command: int, seq: int, body: bytes) -> bytes | None:
        if command != wire.CONTROL_CMD_RESPONSE or not body[0]:
            return None
        simulator.meddle = lambda command, seq, body: None
        simulator._replies = True
        return wire.HEADER.pack(command, len(refused), seq) + refused

    refused = wire.ERROR.pack(-1)
    simulator.meddle = refuse_the_last
    with pytest.raises(MicrovmiError):
        machine.pause()
    steps = [vcpu.step() for vcpu in simulator.vcpus]
    for step in steps:
        step.result(5)
    machine.pause()
    machine.close()


def test_a_pause_is_no_event_for_the_listener(machine: Microvmi, simulator: Simulator) -> None:
    heard: list[object] = []
    listener = threading.Thread(target=lambda: heard.append(machine.listen(0.3)))
    listener.start()
    for _ in range(20):
        machine.pause()
        machine.resume()
    listener.join()
    assert heard == [None]


# ------------------------------------------------------------------------------------------------------------ registers


def attributes(rights: tuple[int, ...]) -> int:
    """Those of a segment, by the members of ``struct kvm_segment``."""
    has = dict(zip(wire.RIGHTS, rights, strict=True))
    low = has["type"] | has["s"] << 4 | has["dpl"] << 5 | (has["present"] and not has["unusable"]) << 7
    return low | has["avl"] << 8 | has["l"] << 9 | has["db"] << 10 | has["g"] << 11


def test_registers_are_all_told(machine: Microvmi, simulator: Simulator) -> None:
    state = simulator.vcpus[1].state
    state.general["rax"] = 0xFFFFFFFF80001234
    state.rights["gs"] = (3, 1, 0, 0, 1, 0, 0, 0, 1)
    found = machine.read_state(1)
    assert {name: found[name] for name in wire.GENERAL} == state.general
    assert [found["cr0"], found["cr2"], found["cr3"], found["cr4"]] == list(state.controls.values())
    assert {name: found[name] for name in wire.MSRS} == {name: state.msrs[index] for name, index in wire.MSRS.items()}
    assert (found["efer"], found["apic_base"], found["cr8"]) == (state.efer, state.apic_base, state.cr8)
    for name, segment in state.segments.items():
        assert tuple(found[f"{name}_{part}"] for part in ("base", "limit", "selector")) == segment
        assert found[f"{name}_attributes"] == attributes(state.rights[name])
    assert (found["gdt_base"], found["gdt_limit"]) == state.gdt
    assert (found["idt_base"], found["idt_limit"]) == state.idt
    assert set(STATE) - set(found) == {*DEBUG, "xcr0"}


def test_of_a_processor_without_tsc_aux_the_others_are_told(machine: Microvmi, simulator: Simulator) -> None:
    state = simulator.vcpus[0].state
    before = machine.read_state()
    del state.msrs[wire.MSRS["tsc_aux"]]
    expected = {name: value for name, value in before.items() if name != "tsc_aux"}
    assert machine.read_state() == expected


def test_all_vcpus_come_in_one_call(machine: Microvmi) -> None:
    assert machine.read_states() == [machine.read_state(vcpu) for vcpu in range(2)]


def test_registers_of_vcpus_that_do_not_exist(machine: Microvmi) -> None:
    assert machine.vcpu_count() == 2
    for vcpu in (2, 65535):
        with pytest.raises(InvalidArgumentError, match="the machine has 2"):
            x86_registers(machine, vcpu)
        with pytest.raises(InvalidArgumentError):
            machine.write_registers(x86_registers(machine), vcpu)


def test_written_registers_are_read_at_once_and_loaded_at_the_resume(machine: Microvmi, simulator: Simulator) -> None:
    machine.pause()
    registers = x86_registers(machine, 1)
    registers.rax, registers.rip, registers.cr3 = 0x1234567890ABCDEF, 0x5678, 0xBAD
    machine.write_registers(registers, 1)
    read = x86_registers(machine, 1)
    assert (read.rax, read.rip, read.cr3) == (0x1234567890ABCDEF, 0x5678, 0x3000)
    assert x86_registers(machine, 0).rax == simulator.vcpus[0].state.general["rax"]
    machine.resume()
    simulator.vcpus[1].step().result(5)
    assert simulator.vcpus[1].state.general["rax"] == 0x1234567890ABCDEF
    assert simulator.vcpus[1].state.general["rip"] == 0x5679
    assert x86_registers(machine, 1).rip == 0x5679


def test_registers_of_a_running_vcpu_cannot_be_written(machine: Microvmi) -> None:
    with pytest.raises(NotSupportedError, match="pause the machine first"):
        machine.write_registers(x86_registers(machine))


def test_registers_can_be_written_while_an_event_stops_the_vcpu(machine: Microvmi, simulator: Simulator) -> None:
    machine.toggle_intercept(Intercept(EventKind.BREAKPOINT))
    hit = simulator.vcpus[0].breakpoint(0x2000)
    event = machine.listen(1)
    assert event is not None
    registers = x86_registers(machine, 0)
    registers.rbx = 77
    machine.write_registers(registers, 0)
    assert x86_registers(machine, 0).rbx == 77
    machine.reply_event(event, Reply(ReplyAction.RETRY))
    assert hit.result(5) == "again"
    assert simulator.vcpus[0].state.general["rbx"] == 77
    simulator.vcpus[0].state.general["rbx"] = 78
    assert x86_registers(machine, 0).rbx == 78


@pytest.mark.parametrize("count", [0, 0xFFFFFFFF])
def test_a_count_of_vcpus_that_cannot_be_is_an_error(machine: Microvmi, simulator: Simulator, count: int) -> None:
    def lie(command: int, seq: int, body: bytes) -> bytes | None:
        if command != wire.GET_GUEST_INFO:
            return None
        return wire.HEADER.pack(command, 24, seq) + bytes(8) + count.to_bytes(4, "little") + bytes(12)

    simulator.meddle = lie
    with pytest.raises(IoError, match=f"tells of {count} vCPUs"):
        machine.vcpu_count()
