# SPDX-License-Identifier: Apache-2.0
"""Events through the KVM driver: each kind with each answer, and page accesses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from drivers.kvm import wire
from drivers.kvm.library import library
from drivers.kvm.simulator import Simulator
from drivers.kvm.watching import heard

from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import (
    InvalidArgumentError,
    IoError,
    NotMappedError,
    NotSupportedError,
)
from libmicrovmi_py.events import (
    UNKNOWN_ADDRESS,
    EventKind,
    Intercept,
    PageAccess,
    Reply,
    ReplyAction,
)

STAR = 0xC0000081
CONTINUE, RETRY, DENY = Reply(ReplyAction.CONTINUE), Reply(ReplyAction.RETRY), Reply(ReplyAction.DENY)


# ---------------------------------------------------------------------------------------------------- control registers


@pytest.mark.parametrize("number", [0, 3, 4])
def test_a_write_of_a_control_register_is_told_and_done(machine: Microvmi, simulator: Simulator, number: int) -> None:
    machine.toggle_intercept(Intercept(EventKind.CR, number))
    old = simulator.vcpus[1].state.controls[number]
    write = simulator.vcpus[1].write_cr(number, 0xABCDEF0000001000)
    event = heard(machine)
    assert (event.kind, event.vcpu, event.number) == (EventKind.CR, 1, number)
    assert (event.old_value, event.new_value) == (old, 0xABCDEF0000001000)
    assert not write.done()
    machine.reply_event(event, CONTINUE)
    assert write.result(5) == 0xABCDEF0000001000


def test_a_denied_write_keeps_the_control_register(machine: Microvmi, simulator: Simulator) -> None:
    machine.toggle_intercept(Intercept(EventKind.CR, 3))
    before = simulator.vcpus[0].state.general["rip"]
    write = simulator.vcpus[0].write_cr(3, 0x5000)
    machine.reply_event(heard(machine), DENY)
    assert write.result(5) == 0x3000
    assert simulator.vcpus[0].state.general["rip"] > before


def test_other_control_registers_are_left_alone(machine: Microvmi, simulator: Simulator) -> None:
    machine.toggle_intercept(Intercept(EventKind.CR, 3))
    assert simulator.vcpus[0].write_cr(4, 0x20).result(5) == 0x20
    for number in (1, 2, 8):
        with pytest.raises(InvalidArgumentError, match=f"control register {number}"):
            machine.toggle_intercept(Intercept(EventKind.CR, number))


# ----------------------------------------------------------------------------------------------------------------- MSRs


@pytest.mark.parametrize(("reply", "result"), [(CONTINUE, 0x1234567890), (DENY, 0xABC00004)])
def test_a_write_of_an_msr_is_told_and_done_or_not(
    machine: Microvmi, simulator: Simulator, reply: Reply, result: int
) -> None:
    machine.toggle_intercept(Intercept(EventKind.MSR, STAR))
    write = simulator.vcpus[1].write_msr(STAR, 0x1234567890)
    event = heard(machine)
    assert (event.kind, event.vcpu, event.number) == (EventKind.MSR, 1, STAR)
    assert (event.old_value, event.new_value) == (0xABC00004, 0x1234567890)
    machine.reply_event(event, reply)
    assert write.result(5) == result


def test_an_msr_that_kvm_does_not_watch_is_refused_and_leaves_nothing_on(
    machine: Microvmi, simulator: Simulator
) -> None:
    with pytest.raises(NotSupportedError, match="refuses kvmi_control_msr"):
        machine.toggle_intercept(Intercept(EventKind.MSR, 0x40000000))
    assert [vcpu.events for vcpu in simulator.vcpus] == [set(), set()]
    with pytest.raises(InvalidArgumentError, match="32 bits"):
        machine.toggle_intercept(Intercept(EventKind.MSR, 1 << 32))


def refuse(simulator: Simulator, refused: int, vcpu: int) -> None:
    """From now on the hypervisor refuses a command that is about a vCPU."""

    def meddle(command: int, seq: int, body: bytes) -> bytes | None:
        if command != refused or wire.VCPU.unpack_from(body)[0] != vcpu:
            return None
        return wire.HEADER.pack(command, wire.ERROR.size, seq) + wire.ERROR.pack(-wire.EINVAL)

    simulator.meddle = meddle


def test_an_intercept_that_one_vcpu_refuses_is_on_for_none(machine: Microvmi, simulator: Simulator) -> None:
    refuse(simulator, wire.CONTROL_CR, 1)
    with pytest.raises(NotSupportedError):
        machine.toggle_intercept(Intercept(EventKind.CR, 3))
    assert [(vcpu.events, vcpu.numbers[wire.CR]) for vcpu in simulator.vcpus] == [(set(), set())] * 2
    simulator.meddle = lambda command, seq, body: None
    machine.toggle_intercept(Intercept(EventKind.CR, 3))
    assert [vcpu.numbers[wire.CR] for vcpu in simulator.vcpus] == [{3}, {3}]


def test_of_two_control_registers_one_is_left_when_the_other_goes(machine: Microvmi, simulator: Simulator) -> None:
    for number in (3, 4):
        machine.toggle_intercept(Intercept(EventKind.CR, number))
    machine.toggle_intercept(Intercept(EventKind.CR, 3), False)
    write = simulator.vcpus[0].write_cr(4, 0x406F1)
    event = heard(machine)
    assert (event.number, event.new_value) == (4, 0x406F1)
    machine.reply_event(event)
    assert write.result(5) == 0x406F1
    machine.toggle_intercept(Intercept(EventKind.CR, 4), False)
    assert simulator.vcpus[0].events == set()


def test_an_event_whose_answer_fails_stays_open(machine: Microvmi, simulator: Simulator) -> None:
    machine.toggle_intercept(Intercept(EventKind.CR, 3))
    write = simulator.vcpus[0].write_cr(3, 0x7000)
    event = heard(machine)
    refuse(simulator, wire.SET_REGISTERS, 0)
    with pytest.raises(IoError):
        machine.reply_event(event, Reply(ReplyAction.CONTINUE, machine.read_registers(0)))
    assert not write.done()
    simulator.meddle = lambda command, seq, body: None
    machine.reply_event(event, Reply(ReplyAction.CONTINUE, machine.read_registers(0)))
    assert write.result(5) == 0x7000


# --------------------------------------------------------------------------------------------- breakpoints, single-step


@pytest.mark.parametrize(("reply", "result"), [(CONTINUE, "delivered"), (RETRY, "again")])
def test_a_breakpoint_is_told_and_delivered_or_not(
    machine: Microvmi, simulator: Simulator, reply: Reply, result: str
) -> None:
    machine.toggle_intercept(Intercept(EventKind.BREAKPOINT))
    simulator.vcpus[0].state.general["rip"] = 0xFFFFFFFF81000010
    hit = simulator.vcpus[0].breakpoint(0x2010)
    event = heard(machine)
    assert (event.kind, event.vcpu, event.instruction_length) == (EventKind.BREAKPOINT, 0, 1)
    assert (event.physical_address, event.virtual_address) == (0x2010, 0xFFFFFFFF81000010)
    machine.reply_event(event, reply)
    assert hit.result(5) == result


def test_the_address_of_a_breakpoint_in_real_mode_counts_its_segment(machine: Microvmi, simulator: Simulator) -> None:
    machine.toggle_intercept(Intercept(EventKind.BREAKPOINT))
    simulator.vcpus[0].state.segments["cs"] = (0xF0000, 0xFFFF, 0xF000)
    simulator.vcpus[0].state.general["rip"] = 0x1234
    simulator.vcpus[0].breakpoint(0xF1234)
    assert heard(machine).virtual_address == 0xF1234


def test_a_breakpoint_cannot_be_placed(machine: Microvmi) -> None:
    with pytest.raises(NotSupportedError, match="places no breakpoints"):
        machine.toggle_intercept(Intercept(EventKind.BREAKPOINT, address=0x1000))


@pytest.mark.parametrize("reply", [CONTINUE, RETRY])
def test_single_steps_are_told_until_they_are_switched_off(
    machine: Microvmi, simulator: Simulator, reply: Reply
) -> None:
    machine.toggle_intercept(Intercept(EventKind.SINGLE_STEP), vcpu=1)
    assert [vcpu.stepping for vcpu in simulator.vcpus] == [False, True]
    for _ in range(3):
        step = simulator.vcpus[1].step()
        event = heard(machine)
        assert (event.kind, event.vcpu) == (EventKind.SINGLE_STEP, 1)
        assert event.virtual_address == simulator.vcpus[1].state.general["rip"]
        assert event.physical_address == UNKNOWN_ADDRESS
        machine.reply_event(event, reply)
        step.result(5)
    machine.toggle_intercept(Intercept(EventKind.SINGLE_STEP), enabled=False, vcpu=1)
    simulator.vcpus[1].step().result(5)
    assert machine.listen(0) is None


def test_a_libkvmi_without_single_step_says_so(
    simulator: Simulator, reach: Callable[..., Microvmi], tmp_path: Path
) -> None:
    machine = reach(library=library(tmp_path, "-DWITHOUT_SINGLESTEP"))
    with pytest.raises(NotSupportedError, match="this version of libkvmi"):
        machine.toggle_intercept(Intercept(EventKind.SINGLE_STEP))
    machine.toggle_intercept(Intercept(EventKind.BREAKPOINT))


# -------------------------------------------------------------------------------------------------------- page accesses


def test_an_access_that_was_taken_is_told_and_done_all_the_same(machine: Microvmi, simulator: Simulator) -> None:
    machine.toggle_intercept(Intercept(EventKind.PAGE_ACCESS))
    machine.set_page_access(0x5123, PageAccess.READ | PageAccess.EXECUTE)
    assert simulator.vcpus[0].access(0x5008, PageAccess.READ).result(5) == "done"
    write = simulator.vcpus[0].access(0x5008, PageAccess.WRITE)
    event = heard(machine)
    assert (event.kind, event.vcpu, event.access) == (EventKind.PAGE_ACCESS, 0, PageAccess.WRITE)
    assert (event.physical_address, event.virtual_address) == (0x5008, 0xFFFF800000005008)
    machine.reply_event(event, CONTINUE)
    assert write.result(5) == "emulated"


def test_a_retried_access_comes_again_until_it_is_allowed(machine: Microvmi, simulator: Simulator) -> None:
    machine.toggle_intercept(Intercept(EventKind.PAGE_ACCESS))
    machine.set_page_access(0x5000, PageAccess.NONE)
    read = simulator.vcpus[1].access(0x5008, PageAccess.READ)
    first = heard(machine)
    machine.reply_event(first, RETRY)
    second = heard(machine)
    assert second.id != first.id
    machine.set_page_access(0x5000, PageAccess.ALL)
    machine.reply_event(second, RETRY)
    assert read.result(5) == "done"


def test_page_accesses_are_what_was_set(machine: Microvmi, simulator: Simulator) -> None:
    assert machine.get_page_access(0x5000) == PageAccess.ALL
    machine.set_page_access(0x5000, PageAccess.READ)
    assert machine.get_page_access(0x5FFF) == PageAccess.READ
    assert machine.get_page_access(0x6000) == PageAccess.ALL
    assert simulator.accesses == {5: PageAccess.READ}
    with pytest.raises(NotSupportedError):
        machine.set_page_access(0x5000, PageAccess.WRITE)
    assert machine.get_page_access(0x5000) == PageAccess.READ


def test_frames_that_do_not_exist_have_no_access(machine: Microvmi) -> None:
    with pytest.raises(NotMappedError):
        machine.get_page_access(0x40000)
    with pytest.raises(NotMappedError):
        machine.set_page_access(0x40000, PageAccess.READ)
