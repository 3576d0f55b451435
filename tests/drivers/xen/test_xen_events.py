# SPDX-License-Identifier: Apache-2.0
"""Events over the stand-in for Xen's libraries: none lost, all answered, nobody left stopped."""

from __future__ import annotations

import struct
import threading
import time
from typing import TYPE_CHECKING

import pytest

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.xen import context
from libmicrovmi_py.drivers.xen.control import Control
from libmicrovmi_py.drivers.xen.session import connect
from libmicrovmi_py.errors import DriverUnavailableError, InvalidArgumentError, NotSupportedError, VmGoneError
from libmicrovmi_py.events import Event, EventKind, Intercept, PageAccess, Reply, ReplyAction

if TYPE_CHECKING:
    from standin import StandIn

CR3 = Intercept(EventKind.CR, 3)
CR4 = Intercept(EventKind.CR, 4)
SYSENTER_CS = Intercept(EventKind.MSR, 0x174)
BREAKPOINT = Intercept(EventKind.BREAKPOINT)
RIP = 0x1000
SET_REGISTERS = 1 << 8
EMULATE = 1 << 2


def cr(index: int, new: int, old: int) -> bytes:
    return struct.pack("<IIQQ", index, 0, new, old)


def heard(machine: Microvmi) -> Event:
    event = machine.listen(5)
    assert event is not None
    return event


def test_events_of_all_vcpus_come_in_order_and_each_vcpu_waits_for_its_answer(xen: StandIn, machine: Microvmi) -> None:
    machine.toggle_intercept(CR3)
    for vcpu in (2, 0, 1):
        assert xen.event(vcpu, 4, cr(1, 0x2000 + vcpu, 0x1000))
    events = [heard(machine) for _ in range(3)]
    assert [(event.vcpu, event.number, event.old_value, event.new_value) for event in events] == [
        (2, 3, 0x1000, 0x2002),
        (0, 3, 0x1000, 0x2000),
        (1, 3, 0x1000, 0x2001),
    ]
    for left, event in zip((2, 1, 0), reversed(events), strict=True):
        machine.reply_event(event)
        assert xen.get("stopped") == left
    assert machine.listen(0) is None


def test_500_events_go_through_a_ring_of_eight(xen: StandIn, machine: Microvmi) -> None:
    machine.toggle_intercept(CR3)
    for number in range(500):
        assert xen.event(number % 3, 4, cr(1, number, number - 1 if number else 0))
        event = heard(machine)
        assert event.new_value == number
        machine.reply_event(event)
    assert xen.get("stopped") == 0


def test_xen_never_puts_more_into_the_ring_than_there_is_room(xen: StandIn, machine: Microvmi) -> None:
    die(xen)
    machine.toggle_intercept(CR3)
    room = [xen.event(number % 3, 4, cr(1, number, 0)) for number in range(9)]
    assert room == [True] * 8 + [False]
    assert [heard(machine).new_value for _ in range(8)] == list(range(8))


def test_an_answer_can_be_given_once_and_to_real_events_only(xen: StandIn, machine: Microvmi) -> None:
    machine.toggle_intercept(CR3)
    xen.event(0, 4, cr(1, 1, 0))
    event = heard(machine)
    machine.reply_event(event)
    for wrong in (event, Event(77, EventKind.CR, 0)):
        with pytest.raises(InvalidArgumentError, match=r"^event "):
            machine.reply_event(wrong)


def test_what_nobody_asked_for_is_answered_unseen(xen: StandIn, machine: Microvmi) -> None:
    machine.toggle_intercept(CR3, vcpu=1)
    xen.event(0, 4, cr(1, 1, 0))
    xen.event(2, 4, cr(2, 1, 0))
    xen.event(2, 10, b"")
    assert machine.listen(0) is None
    assert xen.get("stopped") == 0


def test_events_that_nobody_has_seen_end_with_their_intercept(xen: StandIn, machine: Microvmi) -> None:
    machine.toggle_intercept(CR3)
    machine.toggle_intercept(CR4)
    for _ in range(2):
        xen.event(0, 4, cr(1, 1, 0))
    xen.event(1, 4, cr(2, 1, 0))
    seen = heard(machine)
    machine.toggle_intercept(CR3, False)
    assert xen.get("stopped") == 2
    machine.reply_event(seen)
    last = heard(machine)
    assert last.number == 4
    machine.reply_event(last)
    assert machine.listen(0) is None


def test_an_event_in_the_ring_ends_with_its_intercept(xen: StandIn, machine: Microvmi) -> None:
    machine.toggle_intercept(CR3)
    xen.event(1, 4, cr(1, 1, 0))
    machine.toggle_intercept(CR3, False)
    assert (xen.get("stopped"), xen.get("paused")) == (0, 0)


def test_an_intercept_is_armed_for_the_first_vcpu_and_disarmed_with_the_last(xen: StandIn, machine: Microvmi) -> None:
    armed = []
    for vcpu, enabled in ((0, True), (0, True), (1, True), (0, False), (1, False), (1, False)):
        machine.toggle_intercept(CR3, enabled, vcpu=vcpu)
        armed.append(xen.get("armed"))
    assert armed == [1, 1, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("intercept", "error"),
    [
        (Intercept(EventKind.CR, 2), InvalidArgumentError),
        (Intercept(EventKind.MSR, 1 << 32), InvalidArgumentError),
        (Intercept(EventKind.BREAKPOINT, address=0x1000), NotSupportedError),
        (Intercept(EventKind.PAGE_ACCESS), NotSupportedError),
    ],
)
def test_what_xen_cannot_intercept_is_refused(machine: Microvmi, intercept: Intercept, error: type[Exception]) -> None:
    with pytest.raises(error):
        machine.toggle_intercept(intercept)


def test_another_version_of_xens_events_is_refused_before_anything_changes(xen: StandIn, machine: Microvmi) -> None:
    xen.set("version", 8)
    with pytest.raises(NotSupportedError, match="version 8"):
        machine.toggle_intercept(CR3)
    assert xen.get("enabled") == 0


def test_a_vcpu_that_does_not_exist_is_refused(machine: Microvmi) -> None:
    with pytest.raises(InvalidArgumentError, match="no vCPU 3"):
        machine.toggle_intercept(CR3, vcpu=3)


def test_page_accesses_are_refused_before_anything_changes(machine: Microvmi) -> None:
    with pytest.raises(NotSupportedError, match="EPT"):
        machine.set_page_access(0x5000, PageAccess.READ)
    assert machine.get_page_access(0x5000) is PageAccess.ALL


# ------------------------------------------------------------------------------------------------------------ answers


def registers_of(xen: StandIn, vcpu: int) -> context.Registers:
    return context.registers(xen.cpu(vcpu))


@pytest.mark.parametrize(
    ("intercept", "reason", "body", "register"),
    [
        (CR3, 4, cr(1, 0x2000, 0x1000), "cr3"),
        (CR4, 4, cr(2, 0x2000, 0x1000), "cr4"),
        (SYSENTER_CS, 5, struct.pack("<QQQ", 0x174, 0x2000, 0x1000), "sysenter_cs"),
    ],
)
def test_deny_puts_the_old_value_back_and_nothing_else(
    xen: StandIn, machine: Microvmi, intercept: Intercept, reason: int, body: bytes, register: str
) -> None:
    machine.toggle_intercept(intercept)
    expected = registers_of(xen, 1)
    others = xen.cpu(0), xen.cpu(2)
    setattr(expected, register, 0x1000)
    xen.event(1, reason, body)
    machine.reply_event(heard(machine), Reply(ReplyAction.DENY))
    assert registers_of(xen, 1) == expected
    assert (xen.cpu(0), xen.cpu(2)) == others
    assert (xen.get("stopped"), xen.get("paused")) == (0, 0)


def test_retry_executes_the_write_again(xen: StandIn, machine: Microvmi) -> None:
    machine.toggle_intercept(CR3)
    xen.event(1, 4, cr(1, 0x2000, 0x1000), RIP)
    machine.reply_event(heard(machine), Reply(ReplyAction.RETRY))
    assert (registers_of(xen, 1).cr3, registers_of(xen, 1).rip) == (0x1000, RIP)


def test_an_msr_that_xen_does_not_let_one_write_cannot_be_denied(xen: StandIn, machine: Microvmi) -> None:
    machine.toggle_intercept(Intercept(EventKind.MSR, 0x10))
    xen.event(0, 5, struct.pack("<QQQ", 0x10, 2, 1))
    event = heard(machine)
    with pytest.raises(NotSupportedError, match="0x10"):
        machine.reply_event(event, Reply(ReplyAction.DENY))
    assert xen.get("stopped") == 1
    machine.reply_event(event)


def test_general_registers_go_with_the_answer(xen: StandIn, machine: Microvmi) -> None:
    machine.toggle_intercept(CR3)
    xen.event(2, 4, cr(1, 1, 0))
    event, before = heard(machine), xen.cpu(2)
    registers = machine.read_registers(2)
    registers.r13 = 0x4242
    machine.reply_event(event, Reply(registers=registers))
    assert xen.get("flags") == SET_REGISTERS | 1
    assert struct.unpack_from("<Q", xen.answer(), 56 + 13 * 8) == (0x4242,)
    assert xen.cpu(2) == before


def test_other_registers_are_written_before_the_answer(xen: StandIn, machine: Microvmi) -> None:
    machine.toggle_intercept(CR3)
    xen.event(2, 4, cr(1, 1, 0))
    event = heard(machine)
    registers = machine.read_registers(2)
    registers.cr2, registers.r13 = 0x1234000, 0x4242
    machine.reply_event(event, Reply(registers=registers))
    assert xen.get("flags") == 1
    assert machine.read_registers(2) == registers


def test_a_breakpoint_is_delivered_to_the_guest_or_executed_again(xen: StandIn, machine: Microvmi) -> None:
    machine.toggle_intercept(BREAKPOINT)
    for _ in range(2):
        xen.event(0, 6, struct.pack("<QQIB", 1, 0, 1, 6))
    machine.reply_event(heard(machine))
    assert xen.get("injected") == 1
    last = heard(machine)
    with pytest.raises(NotSupportedError, match="denied"):
        machine.reply_event(last, Reply(ReplyAction.DENY))
    machine.reply_event(last, Reply(ReplyAction.RETRY))
    assert xen.get("injected") == 1


def test_page_accesses_are_taken_while_they_are_intercepted(xen: StandIn) -> None:
    xen.set("ept", 1)
    machine = xen.open()
    machine.set_page_access(0x5000, PageAccess.READ)
    assert (machine.get_page_access(0x5123), xen.get("armed")) == (PageAccess.READ, 0)
    machine.toggle_intercept(Intercept(EventKind.PAGE_ACCESS))
    assert xen.get("armed") == 1
    machine.toggle_intercept(Intercept(EventKind.PAGE_ACCESS), False)
    assert xen.get("armed") == 0
    machine.toggle_intercept(Intercept(EventKind.PAGE_ACCESS))
    machine.close()
    assert xen.get("armed") == 0


def test_an_access_is_done_by_xen_or_tried_again(xen: StandIn, machine: Microvmi) -> None:
    xen.set("ept", 1)
    machine.toggle_intercept(Intercept(EventKind.PAGE_ACCESS))
    flags = []
    for action in (ReplyAction.CONTINUE, ReplyAction.RETRY):
        xen.event(0, 1, struct.pack("<QQQI", 5, 8, 0, 2))
        event = heard(machine)
        assert (event.physical_address, event.access) == (0x5008, PageAccess.WRITE)
        machine.reply_event(event, Reply(action))
        flags.append(xen.get("flags"))
    assert flags == [1 | EMULATE, 1]


def test_vcpus_are_stepped_one_by_one(xen: StandIn, machine: Microvmi) -> None:
    machine.toggle_intercept(Intercept(EventKind.SINGLE_STEP), vcpu=1)
    assert xen.get("armed") == 2
    machine.toggle_intercept(Intercept(EventKind.SINGLE_STEP))
    assert xen.get("armed") == 4
    xen.event(1, 7, struct.pack("<Q", 5), RIP)
    event = heard(machine)
    assert (event.kind, event.vcpu, event.virtual_address) == (EventKind.SINGLE_STEP, 1, RIP)
    machine.reply_event(event)
    machine.toggle_intercept(Intercept(EventKind.SINGLE_STEP), False)
    assert xen.get("armed") == 0


# ------------------------------------------------------------------------------------------------- the end, and others


def test_the_end_answers_what_is_open_and_what_nobody_has_seen(xen: StandIn) -> None:
    machine = xen.open()
    machine.toggle_intercept(CR3)
    machine.toggle_intercept(BREAKPOINT)
    xen.event(0, 4, cr(1, 1, 0))
    xen.event(1, 6, struct.pack("<QQIB", 1, 0, 1, 6))
    heard(machine)
    xen.event(2, 4, cr(1, 1, 0))
    machine.close()
    left = [xen.get(what) for what in ("stopped", "armed", "enabled", "bound", "paused")]
    assert left == [0] * 5
    assert xen.get("injected") == 1


def test_a_paused_domain_stays_paused_when_events_end(xen: StandIn, machine: Microvmi) -> None:
    xen.set("paused", 1)
    machine.toggle_intercept(CR3)
    machine.driver.release_events()  # type: ignore[attr-defined]
    assert xen.get("paused") == 1


def test_a_second_listener_is_told_that_there_is_one(xen: StandIn, machine: Microvmi) -> None:
    machine.toggle_intercept(CR3)
    with xen.open() as second, pytest.raises(DriverUnavailableError, match="another program listens"):
        second.toggle_intercept(CR4)
    assert xen.get("enabled") == 1


def die(xen: StandIn) -> None:
    """Play a listener that got SIGKILL with two vCPUs stopped: its channel is gone, its monitor is not."""
    victim = connect(xen.libraries, Control(xen.libraries, 1, "victim"))
    for vcpu in (0, 2):
        xen.event(vcpu, 4, cr(1, 1, 0))
    assert next(victim.requests()).vcpu == 0
    xen.set("bound", 0)
    assert xen.get("stopped") == 2


def test_after_a_listener_that_died_the_next_one_lets_vcpus_go_on(xen: StandIn, machine: Microvmi) -> None:
    die(xen)
    machine.toggle_intercept(CR3)
    assert xen.get("stopped") == 0
    xen.event(1, 4, cr(1, 5, 4))
    event = heard(machine)
    assert (event.vcpu, event.new_value) == (1, 5)
    machine.reply_event(event)


def test_resume_lets_vcpus_go_on_that_a_dead_listener_left_stopped(xen: StandIn, machine: Microvmi) -> None:
    die(xen)
    xen.set("paused", 2)
    machine.resume()
    assert [xen.get(what) for what in ("stopped", "paused", "enabled")] == [0, 0, 0]


def test_listening_ends_with_the_domain(xen: StandIn, machine: Microvmi) -> None:
    machine.toggle_intercept(CR3)
    threading.Timer(0.2, xen.set, ("dying", 1)).start()
    start = time.monotonic()
    with pytest.raises(VmGoneError):
        machine.listen(30)
    assert time.monotonic() - start < 5
    assert xen.get("bound") == 0
    xen.forget()


def test_listening_without_an_intercept_waits_its_time(machine: Microvmi) -> None:
    start = time.monotonic()
    assert machine.listen(0.15) is None
    assert 0.1 < time.monotonic() - start < 5


def test_other_calls_work_while_a_thread_listens(xen: StandIn, machine: Microvmi) -> None:
    machine.toggle_intercept(CR3)
    found: list[Event | None] = []
    listener = threading.Thread(target=lambda: found.append(machine.listen(10)))
    listener.start()
    machine.pause()
    machine.read_registers(1)
    machine.resume()
    machine.toggle_intercept(CR4)
    xen.event(1, 4, cr(2, 1, 0))
    listener.join(10)
    assert [event.number for event in found if event] == [4]
    machine.reply_event(found[0])  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------------------------- run state


def test_pauses_are_counted_by_xen_and_ours_is_one(xen: StandIn) -> None:
    machine = xen.open()
    machine.pause()
    machine.pause()
    assert xen.get("paused") == 1
    machine.close()
    assert xen.get("paused") == 0


def test_a_pause_that_somebody_else_added_stays(xen: StandIn) -> None:
    machine = xen.open()
    machine.pause()
    xen.set("paused", 2)
    machine.close()
    assert xen.get("paused") == 1


def test_a_pause_of_ours_that_somebody_took_back_is_not_taken_back_again(xen: StandIn) -> None:
    machine = xen.open()
    machine.pause()
    xen.set("paused", 0)
    machine.memory_map()
    xen.set("paused", 1)
    machine.close()
    assert xen.get("paused") == 1


def test_a_pause_of_somebody_else_is_left_alone(xen: StandIn) -> None:
    xen.set("paused", 1)
    machine = xen.open()
    machine.pause()
    machine.close()
    assert xen.get("paused") == 1


def test_resume_takes_back_the_pauses_of_all(xen: StandIn, machine: Microvmi) -> None:
    machine.pause()
    xen.set("paused", 3)
    machine.resume()
    machine.resume()
    assert xen.get("paused") == 0


def test_registers_are_written_while_the_domain_stands_still(xen: StandIn, machine: Microvmi) -> None:
    others = xen.cpu(0), xen.cpu(2)
    registers = machine.read_registers(1)
    assert registers.apic_base == 0xFEE00900
    registers.rip, registers.cs.base = 0x77, 0x88
    machine.write_registers(registers, 1)
    assert machine.read_registers(1) == registers
    assert (xen.cpu(0), xen.cpu(2)) == others
    assert xen.get("paused") == 0
