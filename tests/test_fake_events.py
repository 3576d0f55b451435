# SPDX-License-Identifier: Apache-2.0
"""Events of the fake driver's guest, as a Python program gets them."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from processors import x86_registers

from libmicrovmi_py import (
    ALL_VCPUS,
    EventKind,
    Intercept,
    InvalidArgumentError,
    InvalidContextError,
    Microvmi,
    MicrovmiError,
    NotMappedError,
    NotSupportedError,
    PageAccess,
    Reply,
    ReplyAction,
)
from libmicrovmi_py.arch.x86.msrs import INDEXES
from libmicrovmi_py.drivers.fake import FakeDriver
from libmicrovmi_py.drivers.fake.guest import CODE
from libmicrovmi_py.events import Event, Stop

ROOT = Path(__file__).resolve().parents[1]
CR3 = Intercept(EventKind.CR, 3)
SYSENTER_CS = INDEXES["sysenter_cs"]
BREAKPOINT = Intercept(EventKind.BREAKPOINT)
STEP = Intercept(EventKind.SINGLE_STEP)
ACCESS = Intercept(EventKind.PAGE_ACCESS)


@pytest.fixture
def machine() -> Iterator[Microvmi]:
    with Microvmi.open("vmi://fake/?vcpus=2") as opened:
        yield opened


def test_without_an_intercept_nothing_is_heard(machine: Microvmi) -> None:
    before = time.monotonic()
    assert machine.listen(0.15) is None
    assert 0.15 <= time.monotonic() - before < 2
    assert x86_registers(machine, 0) == x86_registers(machine, 1)


def test_writes_of_a_control_register_come_one_by_one(machine: Microvmi) -> None:
    machine.toggle_intercept(CR3, vcpu=1)
    values = []
    for _ in range(4):
        event = machine.listen(1)
        assert event is not None
        assert (event.kind, event.vcpu, event.number) == (EventKind.CR, 1, 3)
        assert x86_registers(machine, 1).cr3 == event.old_value
        machine.reply_event(event)
        assert x86_registers(machine, 1).cr3 == event.new_value
        values.append(event.new_value)
    assert values == [0x1000, 0x2000, 0x1000, 0x2000]
    machine.toggle_intercept(CR3, False)
    assert machine.listen(0) is None


def test_every_vcpu_is_stopped_until_its_own_event_is_answered(machine: Microvmi) -> None:
    machine.toggle_intercept(CR3)
    first, second = machine.listen(1), machine.listen(1)
    assert first is not None
    assert second is not None
    assert {first.vcpu, second.vcpu} == {0, 1}
    assert machine.listen(0) is None
    machine.reply_event(second)
    third = machine.listen(1)
    assert third is not None
    assert third.vcpu == second.vcpu
    assert len({first.id, second.id, third.id}) == 3


@pytest.mark.parametrize(
    ("intercept", "name"),
    [
        (CR3, "cr3"),
        (Intercept(EventKind.CR, 0), "cr0"),
        (Intercept(EventKind.MSR, SYSENTER_CS), "sysenter_cs"),
    ],
)
def test_a_denied_write_leaves_the_register(machine: Microvmi, intercept: Intercept, name: str) -> None:
    machine.toggle_intercept(intercept, vcpu=0)
    before = x86_registers(machine, 0)
    for _ in range(3):
        event = machine.listen(1)
        assert event is not None
        written = event.new_value
        machine.reply_event(event, Reply(ReplyAction.DENY))
    assert getattr(x86_registers(machine, 0), name) == getattr(before, name) != written


def test_a_reply_changes_registers(machine: Microvmi) -> None:
    machine.toggle_intercept(BREAKPOINT, vcpu=0)
    event = machine.listen(1)
    assert event is not None
    assert (event.instruction_length, event.virtual_address >= CODE) == (1, True)
    registers = x86_registers(machine, 0)
    assert registers.rip == event.virtual_address
    registers.rax = 0x1234
    machine.reply_event(event, Reply(registers=registers))
    assert x86_registers(machine, 0).rax == 0x1234


def test_a_retry_happens_again_until_its_cause_is_gone(machine: Microvmi) -> None:
    machine.toggle_intercept(ACCESS, vcpu=0)
    machine.set_page_access(0x5123, PageAccess.READ | PageAccess.EXECUTE)
    assert machine.get_page_access(0x5FFF) == PageAccess.READ | PageAccess.EXECUTE
    for _ in range(2):
        event = machine.listen(1)
        assert event is not None
        assert (event.access, event.physical_address) == (PageAccess.WRITE, 0x5000)
        machine.reply_event(event, Reply(ReplyAction.RETRY))
    event = machine.listen(1)
    assert event is not None
    machine.set_page_access(0x5000, PageAccess.ALL)
    machine.reply_event(event, Reply(ReplyAction.RETRY))
    assert machine.listen(0.05) is None


def test_a_retry_at_another_instruction_pointer_goes_on(machine: Microvmi) -> None:
    machine.toggle_intercept(BREAKPOINT, vcpu=0)
    event = machine.listen(1)
    assert event is not None
    registers = x86_registers(machine, 0)
    registers.rip += 1
    machine.reply_event(event, Reply(ReplyAction.RETRY, registers))
    machine.toggle_intercept(STEP, vcpu=0)
    following = machine.listen(1)
    assert following is not None
    assert following.kind is not EventKind.BREAKPOINT


def test_a_placed_breakpoint_is_come_by(machine: Microvmi) -> None:
    machine.toggle_intercept(Intercept(EventKind.BREAKPOINT, address=0x401000))
    event = machine.listen(1)
    assert event is not None
    assert (event.kind, event.virtual_address) == (EventKind.BREAKPOINT, 0x401000)


def test_single_steps_follow_every_instruction(machine: Microvmi) -> None:
    machine.toggle_intercept(STEP, vcpu=1)
    places = []
    for _ in range(5):
        event = machine.listen(1)
        assert event is not None
        assert (event.kind, event.vcpu) == (EventKind.SINGLE_STEP, 1)
        places.append(event.virtual_address)
        machine.reply_event(event)
    assert places == [CODE + 16 * step for step in range(5)]


def test_what_cannot_be_answered_so_stays_open(machine: Microvmi) -> None:
    machine.toggle_intercept(BREAKPOINT, vcpu=0)
    event = machine.listen(1)
    assert event is not None
    with pytest.raises(NotSupportedError, match="BREAKPOINT cannot be denied"):
        machine.reply_event(event, Reply(ReplyAction.DENY))
    machine.reply_event(event.id)
    with pytest.raises(InvalidArgumentError, match=f"event {event.id} is not open"):
        machine.reply_event(event)


def test_nonsense_is_refused(machine: Microvmi) -> None:
    for intercept, vcpu in ((CR3, 2), (Intercept(EventKind.CR, 2), ALL_VCPUS), (Intercept(EventKind.MSR, 1, 5), 0)):
        with pytest.raises(InvalidArgumentError):
            machine.toggle_intercept(intercept, vcpu=vcpu)
    with pytest.raises(InvalidArgumentError, match="no vCPU 2"):
        machine.write_registers(x86_registers(machine, 0), 2)
    with pytest.raises(NotMappedError):
        machine.set_page_access(1 << 40, PageAccess.NONE)


def test_a_stopped_machine_does_nothing(machine: Microvmi) -> None:
    machine.toggle_intercept(CR3)
    machine.pause()
    assert machine.listen(0.05) is None
    machine.resume()
    assert machine.listen(1) is not None


def test_closing_leaves_no_trace(machine: Microvmi) -> None:
    driver = machine.driver
    machine.toggle_intercept(CR3, vcpu=0)
    machine.set_page_access(0, PageAccess.NONE)
    event = machine.listen(1)
    assert event is not None
    machine.close()
    assert driver.get_page_access(0) == PageAccess.ALL  # type: ignore[attr-defined]
    assert driver.poll(0) is None  # type: ignore[attr-defined]
    assert driver.read_states((0,))[0]["cr3"] == event.new_value  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", ["close", "stop_listening"])
def test_a_wait_ends_when_it_is_not_wanted_any_more(machine: Microvmi, how: str) -> None:
    failures: list[Exception] = []

    def listen() -> None:
        try:
            machine.listen(60)
        except InvalidContextError as err:
            failures.append(err)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    time.sleep(0.05)
    getattr(machine, how)()
    thread.join(5)
    assert not thread.is_alive()
    assert "closed while it was listened to" in str(failures[0])


def test_the_end_of_the_process_releases_events() -> None:
    code = (
        "from libmicrovmi_py import Microvmi, Intercept, EventKind, PageAccess\n"
        "from libmicrovmi_py.drivers.fake import FakeDriver\n"
        "import atexit\n"
        "class Telling(FakeDriver):\n"
        "    def end_events(self):\n"
        "        print('released', self.read_states(None)[0]['cr3']); return True\n"
        "machine = Microvmi.from_driver(Telling({0: bytearray(4096)}))\n"
        "machine.toggle_intercept(Intercept(EventKind.CR, 3)); machine.listen(1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("released 4096\n", "")


class Deliberate(FakeDriver):
    """It counts the answers, and gives a second one the time to come before the first is over."""

    answers = 0
    again = threading.Event()

    def resume(self, stop: Stop, action: ReplyAction, registers: Mapping[str, int] | None) -> None:
        self.answers += 1
        if self.answers > 1:
            self.again.set()
        self.again.wait(0.5)
        super().resume(stop, action, registers)


def test_of_two_threads_that_answer_one_event_one_does() -> None:
    driver = Deliberate({0: bytearray(4096)})
    errors: list[MicrovmiError] = []

    def answer(machine: Microvmi, event: Event) -> None:
        try:
            machine.reply_event(event)
        except MicrovmiError as err:
            errors.append(err)

    with Microvmi.from_driver(driver) as machine:
        machine.toggle_intercept(Intercept(EventKind.CR, number=3))
        event = machine.listen(5)
        assert event is not None
        threads = [threading.Thread(target=answer, args=(machine, event)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert driver.answers == 1
    assert [type(err) for err in errors] == [InvalidArgumentError] * 3
