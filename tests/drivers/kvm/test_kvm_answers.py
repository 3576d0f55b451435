# SPDX-License-Identifier: Apache-2.0
"""Answers to events of the KVM driver, switching intercepts, listening, and leaving no trace."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from drivers.kvm import wire
from drivers.kvm.simulator import Simulator
from drivers.kvm.watching import heard
from processors import x86_registers

from libmicrovmi_py import Microvmi, release_all
from libmicrovmi_py.errors import (
    DriverUnavailableError,
    InvalidArgumentError,
    IoError,
    NotSupportedError,
)
from libmicrovmi_py.events import (
    Event,
    EventKind,
    Intercept,
    PageAccess,
    Reply,
    ReplyAction,
)

STAR = 0xC0000081
CONTINUE, RETRY, DENY = Reply(ReplyAction.CONTINUE), Reply(ReplyAction.RETRY), Reply(ReplyAction.DENY)


# -------------------------------------------------------------------------------------------------------------- answers


def test_registers_of_an_answer_become_the_vcpus(machine: Microvmi, simulator: Simulator) -> None:
    machine.toggle_intercept(Intercept(EventKind.BREAKPOINT))
    hit = simulator.vcpus[1].breakpoint(0x2000)
    event = heard(machine)
    registers = x86_registers(machine, 1)
    registers.rax, registers.rip = 0xFEDCBA9876543210, 0x4444
    machine.reply_event(event, Reply(ReplyAction.RETRY, registers))
    assert hit.result(5) == "again"
    assert simulator.vcpus[1].state.general["rax"] == 0xFEDCBA9876543210
    assert simulator.vcpus[1].state.general["rip"] == 0x4444


@pytest.mark.parametrize(
    ("kind", "number", "action"),
    [
        (EventKind.CR, 3, ReplyAction.RETRY),
        (EventKind.MSR, STAR, ReplyAction.RETRY),
        (EventKind.BREAKPOINT, 0, ReplyAction.DENY),
        (EventKind.PAGE_ACCESS, 0, ReplyAction.DENY),
        (EventKind.SINGLE_STEP, 0, ReplyAction.DENY),
    ],
)
def test_an_answer_that_a_kind_does_not_have_leaves_the_event_open(
    machine: Microvmi, simulator: Simulator, kind: EventKind, number: int, action: ReplyAction
) -> None:
    machine.toggle_intercept(Intercept(kind, number))
    machine.set_page_access(0x5000, PageAccess.NONE)
    vcpu = simulator.vcpus[0]
    does: dict[EventKind, Callable[[], Future[Any]]] = {
        EventKind.CR: lambda: vcpu.write_cr(3, 0x9000),
        EventKind.MSR: lambda: vcpu.write_msr(STAR, 9),
        EventKind.BREAKPOINT: lambda: vcpu.breakpoint(0x2000),
        EventKind.PAGE_ACCESS: lambda: vcpu.access(0x5000, PageAccess.READ),
        EventKind.SINGLE_STEP: vcpu.step,
    }
    done = does[kind]()
    event = heard(machine)
    with pytest.raises(NotSupportedError, match=kind.name):
        machine.reply_event(event, Reply(action))
    assert not done.done()
    machine.reply_event(event)
    done.result(5)


def test_an_event_is_answered_once(machine: Microvmi, simulator: Simulator) -> None:
    machine.toggle_intercept(Intercept(EventKind.CR, 3))
    write = simulator.vcpus[0].write_cr(3, 0x9000)
    event = heard(machine)
    with pytest.raises(InvalidArgumentError, match="not open"):
        machine.reply_event(event.id + 1000)
    machine.reply_event(event, CONTINUE)
    with pytest.raises(InvalidArgumentError, match=f"event {event.id} is not open"):
        machine.reply_event(event, CONTINUE)
    write.result(5)


def test_vcpus_are_stopped_at_once_and_answered_in_any_order(machine: Microvmi, simulator: Simulator) -> None:
    machine.toggle_intercept(Intercept(EventKind.CR, 3))
    writes = [vcpu.write_cr(3, 0x10000 + vcpu.index) for vcpu in simulator.vcpus]
    events = sorted((heard(machine) for _ in writes), key=lambda event: event.vcpu)
    machine.reply_event(events[1])
    assert writes[1].result(5) == 0x10001
    assert not writes[0].done()
    machine.reply_event(events[0])
    writes[0].result(5)


# ------------------------------------------------------------------------------------------------------------- switches


def test_an_intercept_can_be_for_one_vcpu(machine: Microvmi, simulator: Simulator) -> None:
    machine.toggle_intercept(Intercept(EventKind.CR, 3), vcpu=0)
    assert simulator.vcpus[1].write_cr(3, 0x8000).result(5) == 0x8000
    for vcpu in (2, 65534):
        with pytest.raises(InvalidArgumentError, match="the machine has 2"):
            machine.toggle_intercept(Intercept(EventKind.CR, 3), vcpu=vcpu)


def test_a_kind_stays_on_until_its_last_number_is_off(machine: Microvmi, simulator: Simulator) -> None:
    for _ in range(2):
        machine.toggle_intercept(Intercept(EventKind.CR, 3))
        machine.toggle_intercept(Intercept(EventKind.CR, 4))
    assert simulator.seen.count(wire.CONTROL_EVENTS) == 2
    assert simulator.seen.count(wire.CONTROL_CR) == 4
    machine.toggle_intercept(Intercept(EventKind.CR, 3), enabled=False)
    assert [(vcpu.events, vcpu.numbers[wire.CR]) for vcpu in simulator.vcpus] == [({wire.CR}, {4})] * 2
    machine.toggle_intercept(Intercept(EventKind.CR, 4), enabled=False)
    machine.toggle_intercept(Intercept(EventKind.CR, 4), enabled=False)
    assert [(vcpu.events, vcpu.numbers[wire.CR]) for vcpu in simulator.vcpus] == [(set(), set())] * 2


def test_an_intercept_that_somebody_else_has_is_told_and_undone(machine: Microvmi, simulator: Simulator) -> None:
    def busy(command: int, seq: int, body: bytes) -> bytes | None:
        if command != wire.CONTROL_EVENTS or body[0] != 1:
            return None
        return wire.HEADER.pack(command, wire.ERROR.size, seq) + wire.ERROR.pack(-16)

    simulator.meddle = busy
    with pytest.raises(DriverUnavailableError, match="somebody else"):
        machine.toggle_intercept(Intercept(EventKind.BREAKPOINT))
    assert [vcpu.events for vcpu in simulator.vcpus] == [set(), set()]


# ------------------------------------------------------------------------------------------------------- listening, end


def test_listening_ends_in_time_and_an_event_ends_it_at_once(machine: Microvmi, simulator: Simulator) -> None:
    for timeout in (0, 0.1):
        started = time.monotonic()
        assert machine.listen(timeout) is None
        assert timeout <= time.monotonic() - started < timeout + 1
    machine.toggle_intercept(Intercept(EventKind.CR, 3))
    threading.Timer(0.1, lambda: simulator.vcpus[0].write_cr(3, 0x9000)).start()
    started = time.monotonic()
    machine.reply_event(heard(machine))
    assert time.monotonic() - started < 4


def test_memory_is_read_by_another_thread_while_one_listens(machine: Microvmi, simulator: Simulator) -> None:
    machine.toggle_intercept(Intercept(EventKind.CR, 3))
    events: list[Event] = []

    def listen() -> None:
        for _ in range(200):
            events.append(heard(machine))
            machine.reply_event(events[-1])

    listener = threading.Thread(target=listen)
    listener.start()
    writes = [vcpu.write_cr(3, value) for value in range(100) for vcpu in simulator.vcpus]
    while listener.is_alive():
        assert machine.read_physical(0x1FF0, 64) == bytes(simulator.frames[1][-16:] + simulator.frames[2][:48])
    assert [write.result(5) for write in writes] == [value for value in range(100) for _ in range(2)]
    assert len({event.id for event in events}) == 200


def test_closing_leaves_no_trace(machine: Microvmi, simulator: Simulator) -> None:
    for intercept in (Intercept(EventKind.CR, 3), Intercept(EventKind.MSR, STAR), Intercept(EventKind.SINGLE_STEP)):
        machine.toggle_intercept(intercept)
    machine.set_page_access(0x5000, PageAccess.NONE)
    writes = [vcpu.write_cr(3, 0x9000) for vcpu in simulator.vcpus]
    heard(machine)  # one is open, one was not taken
    release_all(5)
    assert [write.result(5) for write in writes] == [0x9000, 0x9000]
    assert [(vcpu.events, vcpu.stepping) for vcpu in simulator.vcpus] == [(set(), False)] * 2
    assert [vcpu.numbers for vcpu in simulator.vcpus] == [{wire.CR: set(), wire.MSR: set()}] * 2
    assert simulator.accesses == {5: PageAccess.ALL}
    release_all(5)
    machine.close()


def test_what_cannot_be_switched_off_keeps_nothing_else_on(machine: Microvmi, simulator: Simulator) -> None:
    for kind in (EventKind.BREAKPOINT, EventKind.SINGLE_STEP):
        machine.toggle_intercept(Intercept(kind))
    machine.set_page_access(0x5000, PageAccess.NONE)
    hit = simulator.vcpus[0].breakpoint(0x2000)
    heard(machine)

    def broken(command: int, seq: int, body: bytes) -> bytes | None:
        first = command == wire.CONTROL_EVENTS and body[0] == 0
        return wire.HEADER.pack(command, 8, seq) + wire.ERROR.pack(-wire.ENOENT) if first else None

    simulator.meddle = broken
    with pytest.raises(IoError, match="kvmi_control_events"):
        release_all(5)
    assert hit.result(5) == "delivered"
    assert simulator.vcpus[1].events == set()
    assert simulator.accesses == {5: PageAccess.ALL}


def test_closing_a_paused_machine_with_open_events_lets_it_run(machine: Microvmi, simulator: Simulator) -> None:
    machine.toggle_intercept(Intercept(EventKind.CR, 3))
    write = simulator.vcpus[1].write_cr(3, 0x9000)
    heard(machine)
    machine.pause()
    machine.close()
    assert write.result(5) == 0x9000
    for vcpu in simulator.vcpus:
        vcpu.step().result(5)
