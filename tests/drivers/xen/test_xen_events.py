# SPDX-License-Identifier: Apache-2.0
"""Intercepts, events and their answers over the Xen simulator."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from drivers.xen.simulator import BREAKPOINT, CR3, CR4, SINGLE_STEP, cr, heard
from processors import x86_registers

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.saved import xenstate
from libmicrovmi_py.errors import InvalidArgumentError, IoError, NotSupportedError
from libmicrovmi_py.events import Event, EventKind, Intercept, PageAccess, Reply, ReplyAction

if TYPE_CHECKING:
    from drivers.xen.simulator import Simulator

SYSENTER_CS = Intercept(EventKind.MSR, 0x174)
PAGE_ACCESS = Intercept(EventKind.PAGE_ACCESS)
RIP = 0x1000
SET_REGISTERS = 1 << 8
EMULATE = 1 << 2


def test_events_of_all_vcpus_come_in_order_and_each_vcpu_waits_for_its_answer(
    xen: Simulator, machine: Microvmi
) -> None:
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


def test_500_events_go_through_a_ring_of_eight(xen: Simulator, machine: Microvmi) -> None:
    machine.toggle_intercept(CR3)
    for number in range(500):
        assert xen.event(number % 3, 4, cr(1, number, number - 1 if number else 0))
        event = heard(machine)
        assert event.new_value == number
        machine.reply_event(event)
    assert xen.get("stopped") == 0


def test_an_answer_can_be_given_once_and_to_real_events_only(xen: Simulator, machine: Microvmi) -> None:
    machine.toggle_intercept(CR3)
    xen.event(0, 4, cr(1, 1, 0))
    event = heard(machine)
    machine.reply_event(event)
    for wrong in (event, Event(77, EventKind.CR, 0)):
        with pytest.raises(InvalidArgumentError, match=r"^event "):
            machine.reply_event(wrong)


def test_what_nobody_asked_for_is_answered_unseen(xen: Simulator, machine: Microvmi) -> None:
    machine.toggle_intercept(CR3, vcpu=1)
    xen.event(0, 4, cr(1, 1, 0))
    xen.event(2, 4, cr(2, 1, 0))
    xen.event(2, 10, b"")
    assert machine.listen(0) is None
    assert xen.get("stopped") == 0


def test_events_that_nobody_has_seen_end_with_their_intercept(xen: Simulator, machine: Microvmi) -> None:
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


def test_an_event_in_the_ring_ends_with_its_intercept(xen: Simulator, machine: Microvmi) -> None:
    machine.toggle_intercept(CR3)
    xen.event(1, 4, cr(1, 1, 0))
    machine.toggle_intercept(CR3, False)
    assert (xen.get("stopped"), xen.get("paused")) == (0, 0)


def test_an_intercept_is_armed_for_the_first_vcpu_and_disarmed_with_the_last(xen: Simulator, machine: Microvmi) -> None:
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
        (PAGE_ACCESS, NotSupportedError),
    ],
)
def test_what_xen_cannot_intercept_is_refused(machine: Microvmi, intercept: Intercept, error: type[Exception]) -> None:
    with pytest.raises(error):
        machine.toggle_intercept(intercept)


def test_another_version_of_xens_events_is_refused_before_anything_changes(xen: Simulator) -> None:
    xen.set("version", 8)
    with xen.open() as machine, pytest.raises(NotSupportedError, match="version 8"):
        machine.toggle_intercept(CR3)
    assert xen.get("enabled") == 0


def test_a_vcpu_that_does_not_exist_is_refused(machine: Microvmi) -> None:
    with pytest.raises(InvalidArgumentError, match="no vCPU 3"):
        machine.toggle_intercept(CR3, vcpu=3)


@pytest.mark.parametrize(("ept", "missing"), [(1, set()), (0, {EventKind.PAGE_ACCESS, EventKind.SINGLE_STEP})])
def test_what_the_processor_has_not_is_not_among_the_abilities(
    xen: Simulator, ept: int, missing: set[EventKind]
) -> None:
    xen.set("ept", ept)
    xen.set("stepless", not ept)
    with xen.open() as machine:
        abilities = machine.driver.event_abilities  # type: ignore[attr-defined]
        assert set(EventKind) - set(abilities.kinds) == missing | {EventKind.VIRTUAL_ACCESS}
        assert ("Intel" in abilities.why_not) == bool(missing)
        assert xen.get("enabled") == 0
        for kind in missing:
            with pytest.raises(NotSupportedError, match="Intel"):
                machine.toggle_intercept(Intercept(kind))


def test_who_asks_for_a_range_is_told_what_there_is_instead(xen: Simulator, machine: Microvmi) -> None:
    variable = Intercept(EventKind.VIRTUAL_ACCESS, address=0x2000, size=8, access=PageAccess.WRITE)
    with pytest.raises(NotSupportedError, match=r"mapped elsewhere at any time.*intercept PAGE_ACCESS"):
        machine.toggle_intercept(variable)
    assert xen.get("enabled") == 0


def test_page_accesses_are_refused_before_anything_changes(machine: Microvmi) -> None:
    with pytest.raises(NotSupportedError, match="EPT"):
        machine.set_page_access(0x5000, PageAccess.READ)
    assert machine.get_page_access(0x5000) is PageAccess.ALL


# ------------------------------------------------------------------------------------------------------------ answers


def registers_of(xen: Simulator, vcpu: int) -> dict[str, int]:
    return xenstate.values(xen.cpu(vcpu))


@pytest.mark.parametrize(
    ("intercept", "reason", "body", "register"),
    [
        (CR3, 4, cr(1, 0x2000, 0x1000), "cr3"),
        (CR4, 4, cr(2, 0x2000, 0x1000), "cr4"),
        (SYSENTER_CS, 5, struct.pack("<QQQ", 0x174, 0x2000, 0x1000), "sysenter_cs"),
    ],
)
def test_deny_puts_the_old_value_back_and_nothing_else(
    xen: Simulator, machine: Microvmi, intercept: Intercept, reason: int, body: bytes, register: str
) -> None:
    machine.toggle_intercept(intercept)
    expected = registers_of(xen, 1)
    others = xen.cpu(0), xen.cpu(2)
    expected[register] = 0x1000
    xen.event(1, reason, body)
    machine.reply_event(heard(machine), Reply(ReplyAction.DENY))
    assert registers_of(xen, 1) == expected
    assert (xen.cpu(0), xen.cpu(2)) == others
    assert (xen.get("stopped"), xen.get("paused")) == (0, 0)


def test_retry_executes_the_write_again(xen: Simulator, machine: Microvmi) -> None:
    machine.toggle_intercept(CR3)
    xen.event(1, 4, cr(1, 0x2000, 0x1000), RIP)
    machine.reply_event(heard(machine), Reply(ReplyAction.RETRY))
    assert (registers_of(xen, 1)["cr3"], registers_of(xen, 1)["rip"]) == (0x1000, RIP)


def test_an_msr_that_xen_does_not_let_one_write_cannot_be_denied(xen: Simulator, machine: Microvmi) -> None:
    machine.toggle_intercept(Intercept(EventKind.MSR, 0x10))
    xen.event(0, 5, struct.pack("<QQQ", 0x10, 2, 1))
    event = heard(machine)
    with pytest.raises(NotSupportedError, match="0x10"):
        machine.reply_event(event, Reply(ReplyAction.DENY))
    assert xen.get("stopped") == 1
    machine.reply_event(event)


def test_general_registers_go_with_the_answer(xen: Simulator, machine: Microvmi) -> None:
    machine.toggle_intercept(CR3)
    xen.event(2, 4, cr(1, 1, 0))
    event, before = heard(machine), xen.cpu(2)
    registers = x86_registers(machine, 2)
    registers.r13 = 0x4242
    machine.reply_event(event, Reply(registers=registers))
    assert xen.get("flags") == SET_REGISTERS | 1
    assert struct.unpack_from("<Q", xen.answer(), 56 + 13 * 8) == (0x4242,)
    assert xen.cpu(2) == before


def test_other_registers_are_written_before_the_answer(xen: Simulator, machine: Microvmi) -> None:
    machine.toggle_intercept(CR3)
    xen.event(2, 4, cr(1, 1, 0))
    event = heard(machine)
    registers = x86_registers(machine, 2)
    registers.cr2, registers.r13 = 0x1234000, 0x4242
    machine.reply_event(event, Reply(registers=registers))
    assert xen.get("flags") == 1
    assert x86_registers(machine, 2) == registers


def test_a_breakpoint_is_delivered_to_the_guest_or_executed_again(xen: Simulator, machine: Microvmi) -> None:
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


def test_page_accesses_are_taken_while_they_are_intercepted(xen: Simulator) -> None:
    xen.set("ept", 1)
    machine = xen.open()
    machine.set_page_access(0x5000, PageAccess.READ)
    assert (machine.get_page_access(0x5123), xen.get("armed")) == (PageAccess.READ, 0)
    machine.toggle_intercept(PAGE_ACCESS)
    assert xen.get("armed") == 1
    machine.toggle_intercept(PAGE_ACCESS, False)
    assert xen.get("armed") == 0
    machine.toggle_intercept(PAGE_ACCESS)
    machine.close()
    assert xen.get("armed") == 0


def test_an_access_is_done_by_xen_or_tried_again(xen: Simulator) -> None:
    xen.set("ept", 1)
    machine = xen.open()
    machine.toggle_intercept(PAGE_ACCESS)
    flags = []
    for action in (ReplyAction.CONTINUE, ReplyAction.RETRY):
        xen.event(0, 1, struct.pack("<QQQI", 5, 8, 0, 2))
        event = heard(machine)
        assert (event.physical_address, event.access) == (0x5008, PageAccess.WRITE)
        machine.reply_event(event, Reply(action))
        flags.append(xen.get("flags"))
    assert flags == [1 | EMULATE, 1]
    machine.close()


def test_a_page_that_the_guest_has_given_away_is_given_back(xen: Simulator) -> None:
    xen.set("ept", 1)
    machine = xen.open()
    machine.toggle_intercept(PAGE_ACCESS)
    for address in (0x5000, 0x6000):
        machine.set_page_access(address, PageAccess.READ)
    assert xen.get("armed") == 2
    xen.hole(5, 1)
    machine.close()
    assert xen.get("armed") == 0


def test_vcpus_are_stepped_one_by_one(xen: Simulator, machine: Microvmi) -> None:
    machine.toggle_intercept(SINGLE_STEP, vcpu=1)
    assert xen.get("armed") == 2
    machine.toggle_intercept(SINGLE_STEP)
    assert xen.get("armed") == 4
    xen.event(1, 7, struct.pack("<Q", 5), RIP)
    event = heard(machine)
    assert (event.kind, event.vcpu, event.virtual_address) == (EventKind.SINGLE_STEP, 1, RIP)
    machine.reply_event(event)
    machine.toggle_intercept(SINGLE_STEP, False)
    assert xen.get("armed") == 0


@pytest.mark.parametrize("vcpu", [0, 1, 2])
def test_no_vcpu_is_stepped_when_not_all_can_be(xen: Simulator, machine: Microvmi, vcpu: int) -> None:
    xen.set("unsteppable", vcpu + 1)
    with pytest.raises(IoError, match="single steps"):
        machine.toggle_intercept(SINGLE_STEP)
    assert xen.get("armed") == 0
