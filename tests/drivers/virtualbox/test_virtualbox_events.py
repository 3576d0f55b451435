# SPDX-License-Identifier: Apache-2.0
"""Run state, breakpoints and single steps. The machine's first vCPU runs nop, wrmsr, mov cr3, jmp, for ever."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from drivers.virtualbox.simulator import BEHIND_MOV_CR3, CODE, MOV_CR3, PLACED, VIRTUAL, WRMSR, Simulator, simulated
from processors import x86_registers

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.control import STOPPED
from libmicrovmi_py.drivers.virtualbox.driver import OpenMachine
from libmicrovmi_py.errors import InvalidArgumentError, NotMappedError, NotSupportedError
from libmicrovmi_py.events import Event, EventKind, Intercept, Reply, ReplyAction

PAUSED = 1
LSTAR = 0xC0000082
BREAKPOINT = Intercept(EventKind.BREAKPOINT, address=MOV_CR3)
MSR = Intercept(EventKind.MSR, LSTAR)
CR3 = Intercept(EventKind.CR, 3)
STEP = Intercept(EventKind.SINGLE_STEP)
RETRY = Reply(ReplyAction.RETRY)
DENY = Reply(ReplyAction.DENY)


def expect(machine: Microvmi) -> Event:
    event = machine.listen(5)
    assert event is not None
    return event


def rounds(machine: Microvmi) -> int:
    """How often the guest went round; what is told is of the last stop."""
    machine.pause()
    found = x86_registers(machine).rbx
    machine.resume()
    return found


def runs(machine: Microvmi) -> bool:
    before = rounds(machine)
    end = time.monotonic() + 5
    while time.monotonic() < end:
        time.sleep(0.005)
        if rounds(machine) != before:
            return True
    return False


# -------------------------------------------------------------------------------------------------------- run state


def test_pausing_stops_the_guest_and_resuming_lets_it_run(vm: Simulator, machine: Microvmi) -> None:
    machine.pause()
    first = x86_registers(machine)
    time.sleep(0.05)
    assert x86_registers(machine) == first
    assert vm.state() == PAUSED
    machine.resume()
    assert vm.state() == 0
    assert runs(machine)


def test_pausing_twice_is_one_pause(vm: Simulator, machine: Microvmi) -> None:
    for _ in range(2):
        machine.pause()
        assert machine.driver.run_state() == STOPPED  # type: ignore[attr-defined]
    machine.resume()
    machine.resume()
    assert vm.state() == 0


def test_a_machine_paused_by_others_stays_paused(vm: Simulator) -> None:
    vm.order("FDP_Pause")
    with Microvmi.open(vm.uri) as machine:
        machine.pause()
        machine.toggle_intercept(BREAKPOINT)
        assert machine.listen(0.02) is None
    assert vm.state() == PAUSED


def test_a_machine_paused_by_others_is_not_stepped(vm: Simulator) -> None:
    vm.order("FDP_Pause")
    with Microvmi.open(vm.uri) as machine:
        before = x86_registers(machine)
        machine.toggle_intercept(STEP)
        assert machine.listen(0.02) is None
        machine.toggle_intercept(STEP, False)
        assert x86_registers(machine) == before
    assert vm.state() == PAUSED


def test_closing_lets_a_machine_run_that_was_paused_here(vm: Simulator) -> None:
    with Microvmi.open(vm.uri) as machine:
        machine.pause()
    assert vm.state() == 0


# ------------------------------------------------------------------------------------------------------- breakpoints


def test_a_breakpoint_stops_the_guest_each_time_it_comes_by(vm: Simulator, machine: Microvmi) -> None:
    machine.toggle_intercept(BREAKPOINT)
    counted = []
    for _ in range(3):
        event = expect(machine)
        assert (event.kind, event.vcpu, event.virtual_address, event.physical_address) == (
            EventKind.BREAKPOINT,
            0,
            MOV_CR3,
            MOV_CR3,
        )
        assert x86_registers(machine).rip == MOV_CR3
        counted.append((event.id, x86_registers(machine).rbx))
        machine.reply_event(event)
    assert counted == [(1, counted[0][1]), (2, counted[0][1] + 1), (3, counted[0][1] + 2)]


def test_memory_can_be_read_and_written_while_an_event_is_open(machine: Microvmi) -> None:
    machine.toggle_intercept(BREAKPOINT)
    event = expect(machine)
    machine.write_physical(0x5000, b"while it stands")
    assert machine.read_physical(0x5000, 15) == b"while it stands"
    assert machine.listen(0.01) is None
    machine.reply_event(event)


def test_an_event_stays_with_its_virtual_address(machine: Microvmi) -> None:
    machine.toggle_intercept(Intercept(EventKind.BREAKPOINT, address=VIRTUAL + WRMSR))
    event = expect(machine)
    assert (event.virtual_address, event.physical_address) == (WRMSR, WRMSR)


def test_without_its_breakpoint_the_guest_is_not_stopped(vm: Simulator, machine: Microvmi) -> None:
    machine.toggle_intercept(BREAKPOINT)
    machine.toggle_intercept(BREAKPOINT)
    machine.reply_event(expect(machine))
    machine.toggle_intercept(BREAKPOINT, False)
    machine.toggle_intercept(BREAKPOINT, False)
    assert machine.listen(0.05) is None
    assert runs(machine)


def test_a_place_with_two_addresses_is_a_breakpoint_until_the_last_of_them_goes(machine: Microvmi) -> None:
    other = Intercept(EventKind.BREAKPOINT, address=VIRTUAL + MOV_CR3)
    for first, last in ((BREAKPOINT, other), (other, BREAKPOINT)):
        machine.pause()
        machine.toggle_intercept(first)
        machine.toggle_intercept(last)
        machine.toggle_intercept(first, False)
        machine.resume()
        event = expect(machine)
        assert event.physical_address == MOV_CR3
        machine.toggle_intercept(last, False)
        machine.reply_event(event)
        assert machine.listen(0.03) is None


def test_retrying_stops_at_the_same_place_unless_the_cause_went(machine: Microvmi) -> None:
    machine.toggle_intercept(BREAKPOINT)
    first = expect(machine)
    before = x86_registers(machine).rbx
    machine.reply_event(first, RETRY)
    second = expect(machine)
    assert x86_registers(machine).rbx == before
    machine.toggle_intercept(BREAKPOINT, False)
    machine.reply_event(second, RETRY)
    assert runs(machine)


def test_a_reply_with_registers_moves_the_guest(machine: Microvmi) -> None:
    machine.toggle_intercept(BREAKPOINT)
    event = expect(machine)
    wanted = x86_registers(machine)
    wanted.rip, wanted.rbx = BEHIND_MOV_CR3, 0x100000
    machine.reply_event(event, Reply(registers=wanted))
    machine.reply_event(expect(machine))
    assert expect(machine).id == 3
    assert x86_registers(machine).rbx == 0x100002


def test_a_guest_that_is_moved_onto_a_breakpoint_stops_there(machine: Microvmi) -> None:
    machine.toggle_intercept(BREAKPOINT)
    event = expect(machine)
    machine.toggle_intercept(Intercept(EventKind.BREAKPOINT, address=CODE))
    wanted = x86_registers(machine)
    wanted.rip = CODE
    machine.reply_event(event, Reply(registers=wanted))
    assert expect(machine).virtual_address == CODE
    assert x86_registers(machine).rbx == wanted.rbx


def test_a_write_to_an_msr_is_told_before_it_is_done(vm: Simulator, machine: Microvmi) -> None:
    machine.pause()
    wanted = x86_registers(machine)
    wanted.rax, wanted.msr_lstar = 0xABCD, 0x77
    machine.write_registers(wanted)
    machine.toggle_intercept(MSR)
    machine.resume()
    event = expect(machine)
    assert (event.kind, event.number, event.old_value) == (EventKind.MSR, LSTAR, 0x77)
    assert (event.new_value, event.instruction_length) == (0x1D0000ABCD, 2)
    machine.reply_event(event)
    assert expect(machine).old_value == 0x1D0000ABCD


def test_the_value_of_an_msr_is_the_lower_halves_of_two_registers(machine: Microvmi) -> None:
    machine.pause()
    registers = x86_registers(machine)
    registers.rax, registers.rdx, registers.rcx = 0xDEADBEEF0000001A, 0xFEEDFACE0000001D, 0xABCDEF01 << 32 | LSTAR
    machine.write_registers(registers)
    machine.toggle_intercept(MSR)
    machine.resume()
    event = expect(machine)
    assert (event.number, event.new_value) == (LSTAR, 0x1D0000001A)


def test_a_write_to_an_msr_can_be_denied(vm: Simulator, machine: Microvmi) -> None:
    machine.toggle_intercept(MSR)
    first = expect(machine)
    vm.msr(LSTAR, 0, 0x55)
    machine.reply_event(first, DENY)
    assert expect(machine).old_value == 0x55


def test_a_write_to_a_control_register_is_told_when_it_is_done(machine: Microvmi) -> None:
    machine.toggle_intercept(CR3)
    event = expect(machine)
    assert (event.kind, event.number, event.new_value) == (EventKind.CR, 3, 0x1A)
    assert x86_registers(machine).rip == BEHIND_MOV_CR3
    for reply in (RETRY, DENY):
        with pytest.raises(NotSupportedError):
            machine.reply_event(event, reply)
    machine.reply_event(event)
    assert expect(machine).id == 2


def test_single_steps_tell_each_instruction(machine: Microvmi) -> None:
    machine.toggle_intercept(BREAKPOINT)
    event = expect(machine)
    machine.toggle_intercept(STEP)
    machine.reply_event(event)
    found = []
    for _ in range(4):
        event = expect(machine)
        found.append((event.kind, event.virtual_address))
        machine.reply_event(event)
    assert found == [(EventKind.SINGLE_STEP, at) for at in (BEHIND_MOV_CR3, CODE, WRMSR, MOV_CR3)]
    machine.toggle_intercept(STEP, False)
    assert expect(machine).virtual_address == MOV_CR3


def test_single_steps_wait_while_the_machine_is_paused(machine: Microvmi) -> None:
    machine.toggle_intercept(STEP)
    machine.pause()
    assert machine.listen(0.02) is None
    machine.resume()
    assert expect(machine).kind is EventKind.SINGLE_STEP


def test_a_machine_paused_while_an_event_is_open_stays_paused_after_the_answer(
    vm: Simulator, machine: Microvmi
) -> None:
    machine.toggle_intercept(BREAKPOINT)
    event = expect(machine)
    machine.pause()
    machine.reply_event(event)
    assert vm.state() & PAUSED
    assert machine.listen(0.02) is None
    machine.resume()
    assert expect(machine).id == 2


def test_resuming_does_not_answer_an_event(vm: Simulator, machine: Microvmi) -> None:
    machine.toggle_intercept(BREAKPOINT)
    event = expect(machine)
    machine.pause()
    machine.resume()
    assert vm.state() & PAUSED
    machine.reply_event(event)
    assert expect(machine).id == 2


def test_listening_waits_and_sees_what_comes_meanwhile(machine: Microvmi) -> None:
    start = time.monotonic()
    assert machine.listen(0.05) is None
    assert 0.05 <= time.monotonic() - start < 1
    found: list[Event | None] = []
    waiting = threading.Thread(target=lambda: found.append(machine.listen(5)))
    waiting.start()
    machine.toggle_intercept(BREAKPOINT)
    waiting.join(5)
    assert found[0] is not None


@pytest.mark.parametrize("intercept", [BREAKPOINT, MSR, CR3, STEP])
@pytest.mark.parametrize("listened", [True, False])
def test_closing_undoes_everything(vm: Simulator, intercept: Intercept, listened: bool) -> None:
    with Microvmi.open(vm.uri) as machine:
        machine.toggle_intercept(intercept)
        time.sleep(0.01)
        if listened:
            expect(machine)
    assert vm.msr(PLACED) == 0
    with Microvmi.open(vm.uri) as machine:
        assert runs(machine)
        assert vm.state() == 0


def test_an_answer_to_what_is_not_open_is_refused(machine: Microvmi) -> None:
    machine.toggle_intercept(BREAKPOINT)
    event = expect(machine)
    machine.reply_event(event)
    with pytest.raises(InvalidArgumentError, match="not open"):
        machine.reply_event(event)


@pytest.mark.parametrize(
    ("intercept", "error"),
    [
        (Intercept(EventKind.BREAKPOINT), NotSupportedError),
        (Intercept(EventKind.BREAKPOINT, address=0x123456789000), NotMappedError),
        (Intercept(EventKind.PAGE_ACCESS), NotSupportedError),
        (Intercept(EventKind.MSR, 0), NotSupportedError),
        (Intercept(EventKind.CR, 2), InvalidArgumentError),
    ],
)
def test_what_cannot_be_intercepted_is_refused(vm: Simulator, intercept: Intercept, error: type[Exception]) -> None:
    with Microvmi.open(vm.uri) as machine:
        with pytest.raises(error):
            machine.toggle_intercept(intercept)
        assert vm.state() == 0


def test_a_machine_takes_no_more_breakpoints_than_it_has(vm: Simulator, machine: Microvmi) -> None:
    for number in range(8):
        machine.toggle_intercept(Intercept(EventKind.BREAKPOINT, address=0x6000 + number))
    with pytest.raises(OSError, match="does not take a breakpoint"):
        machine.toggle_intercept(Intercept(EventKind.BREAKPOINT, address=0x7000))
    assert vm.state() == 0


def test_machines_of_several_vcpus_have_no_events(library: Path) -> None:
    with simulated(library, {0: 0x4000}, vcpus=2) as vm, Microvmi.open(vm.uri) as machine:
        with pytest.raises(NotSupportedError, match="one CPU"):
            machine.toggle_intercept(BREAKPOINT)
        with pytest.raises(InvalidArgumentError, match="no vCPU"):
            machine.toggle_intercept(BREAKPOINT, vcpu=2)


def test_a_stop_that_was_told_and_never_answered_stops_nobody_at_the_end(vm: Simulator, machine: Microvmi) -> None:
    driver = machine.driver
    assert isinstance(driver, OpenMachine)
    driver.arm(BREAKPOINT, frozenset({0}))
    assert driver.poll(5) is not None
    driver.arm(BREAKPOINT, frozenset())
    assert vm.state() & PAUSED
    with driver.quiet():
        assert driver.end_events()
    assert runs(machine)
