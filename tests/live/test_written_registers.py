# SPDX-License-Identifier: Apache-2.0
"""Writes of registers that are found in the guest's code, and the guest's own breakpoints: none is missed.

The guest isolates its kernel's page tables, and counts what its programs do (``writes.c``). QEMU itself logs each write
of CR3.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from needs import missing

from libmicrovmi_py import Microvmi
from libmicrovmi_py.arch.x86.registers import X86Registers
from libmicrovmi_py.errors import NotSupportedError
from libmicrovmi_py.events import Event, EventKind, Intercept, InterceptFlag, Reply, ReplyAction

from . import packages
from .guest import VCPUS, Boot, Guest
from .modules import CLTS_AT, CR0_AT, CR4_AT, GS_BASE, MSR_AT, writing_module
from .writing import Counted, Mode, Writer, listened, writing

CR0, CR4 = (Intercept(EventKind.CR, number) for number in (0, 4))
EVERY_CR3 = Intercept(EventKind.CR, 3, flags=InterceptFlag.EVERY_WRITE)
MSR = Intercept(EventKind.MSR, GS_BASE)
OWN = Intercept(EventKind.BREAKPOINT)

TIME_STAMPS_OFF = 4
"""CR4.TSD."""

MODULES = 0xFFFF_FFFF_C000_0000
"""Where modules are loaded, without a random place for the kernel."""

IN_MODULE = [(0, CR0_AT), (0, CLTS_AT), (4, CR4_AT), (GS_BASE, MSR_AT)]
"""What a module's first function writes, and where in its page."""

ROUNDS, LOADS, CALLS = 15, 1, 12
LOGGED = re.compile(r"^CR3 update: CR3=([0-9a-f]{16})$", re.MULTILINE)


@pytest.fixture(scope="module")
def writers_guest(boot: Boot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    with writing(boot, tmp_path_factory.mktemp("writes"), "nokaslr pti=on", module_of(boot) or b"") as guest:
        yield guest


def module_of(boot: Boot) -> bytes | None:
    """That of its kernel; ``None``: there is none."""
    try:
        return writing_module(packages.module(boot.kernel, "arch/x86/kernel/msr"))
    except packages.Unobtainable as err:
        print(err, file=sys.stderr)
        return None


@pytest.fixture
def machine(writers_guest: Guest) -> Iterator[Microvmi]:
    """The guest, which runs before and after each test."""
    with Microvmi.open(writers_guest.uri) as machine:
        yield machine
    assert writers_guest.monitor.status() == "running"


@pytest.fixture
def writers(machine: Microvmi) -> list[Writer]:
    """The program of each vCPU."""
    return [Writer(machine, vcpu) for vcpu in range(VCPUS)]


def deny(_: Event) -> Reply:
    return Reply(ReplyAction.DENY)


def test_every_write_of_an_msr_on_both_vcpus_is_told_before_it_happens(
    machine: Microvmi, writers: list[Writer]
) -> None:
    machine.toggle_intercept(MSR)
    for writer in writers:
        writer.begin(Mode.GS_BASE, ROUNDS)
    events = listened(machine, writers)
    assert {(event.kind, event.number, event.instruction_length) for event in events} == {(EventKind.MSR, GS_BASE, 2)}
    for vcpu, writer in enumerate(writers):
        told = [event.new_value for event in events if event.vcpu == vcpu]
        assert set(told) >= {number << 12 for number in range(1, ROUNDS + 1)}  # each value is written but once
        assert writer.counted.refused == 0


def test_a_write_of_an_msr_that_is_denied_changes_nothing(machine: Microvmi, writers: list[Writer]) -> None:
    writers[1].begin(Mode.GS_BASE, 1)
    assert listened_without(writers[1]).value == 1 << 12
    machine.toggle_intercept(MSR, vcpu=1)
    writers[1].begin(Mode.GS_BASE, 5)
    events = listened(machine, writers, deny)
    assert {event.vcpu for event in events} == {1}
    assert writers[1].counted.refused >= 4  # one may be written that is there already


def listened_without(writer: Writer) -> Counted:
    """What a program counted while nobody listens."""
    end = time.monotonic() + 60
    while not writer.is_done:
        assert time.monotonic() < end
        time.sleep(0.01)
    return writer.counted


def test_registers_of_an_answer_are_what_is_written(machine: Microvmi, writers: list[Writer]) -> None:
    def other(event: Event) -> Reply:
        registers = machine.read_registers(event.vcpu)
        assert isinstance(registers, X86Registers)
        assert registers.rip == event.instruction_pointer
        assert (registers.rdx << 32 | registers.rax & 0xFFFF_FFFF) == event.new_value
        registers.rdx, registers.rax = 0x12, 0x3456_7000
        return Reply(registers=registers)

    machine.toggle_intercept(MSR, vcpu=0)
    writers[0].begin(Mode.GS_BASE, 1)
    listened(machine, writers, other)
    assert (writers[0].counted.value, writers[0].counted.refused) == (0x12_3456_7000, 1)


def test_every_write_of_cr4_is_told_and_one_that_is_denied_changes_nothing(
    machine: Microvmi, writers: list[Writer]
) -> None:
    machine.toggle_intercept(CR4)
    writers[0].begin(Mode.TIME_STAMPS, 10)
    events = [event for event in listened(machine, writers) if event.vcpu == 0]
    assert all(event.old_value ^ event.new_value == TIME_STAMPS_OFF for event in events)
    assert sum(bool(event.new_value & TIME_STAMPS_OFF) for event in events) >= 5
    assert (writers[0].counted.refused, writers[0].counted.faults) == (0, 5)
    writers[0].begin(Mode.TIME_STAMPS, 10)
    listened(machine, writers, deny)
    assert (writers[0].counted.refused, writers[0].counted.faults) == (5, 0)


def test_every_write_of_cr3_is_told_as_qemu_logs_them(
    machine: Microvmi, writers: list[Writer], writers_guest: Guest
) -> None:
    """Each call of the kernel is two, as its tables are isolated."""
    log = writers_guest.directory / "log-of-cr3"
    machine.pause()
    machine.toggle_intercept(EVERY_CR3)
    writers_guest.monitor.human(f"logfile {log}")
    writers_guest.monitor.human("log mmu")
    machine.resume()
    writers[1].begin(Mode.CALL, CALLS)
    events = listened(machine, writers)
    machine.pause()
    while (event := machine.listen(0)) is not None:
        events.append(event)
        machine.reply_event(event)
    writers_guest.monitor.human("log none")
    written = Counter(int(digits, 16) for digits in LOGGED.findall(log.read_text()))
    told = Counter(event.new_value for event in events)
    assert sum(told.values()) >= 2 * CALLS
    assert not written - told
    assert sum((told - written).values()) <= VCPUS  # those that the pause keeps from happening
    machine.resume()


def test_the_first_code_of_a_module_that_is_loaded_meanwhile_is_seen(
    machine: Microvmi, writers: list[Writer], boot: Boot
) -> None:
    if module_of(boot) is None:
        missing("no module of the guest's kernel (above: why); to enable: have apt find the package of that kernel")
    for writer, intercepts, expected in ((writers[1], (CR0, CR4), IN_MODULE[:3]), (writers[0], (MSR,), IN_MODULE)):
        for intercept in intercepts:
            machine.toggle_intercept(intercept)
        loaded(machine, writer, expected)


def loaded(machine: Microvmi, writer: Writer, expected: list[tuple[int, int]]) -> None:
    """Have a program load the module: what that writes is told."""
    writer.begin(Mode.LOAD, LOADS)
    inside = [event for event in listened(machine, [writer]) if event.instruction_pointer >= MODULES]
    assert writer.counted.loads == LOADS
    code = inside[0].instruction_pointer - CR0_AT & 0xFFF
    assert [(event.number, (event.instruction_pointer & 0xFFF) - code) for event in inside] == expected * LOADS
    assert all(event.old_value == event.new_value for event in inside if event.kind is EventKind.CR)


def test_the_first_code_of_a_module_is_seen_beside_a_variable_that_is_watched(boot: Boot, tmp_path: Path) -> None:
    """On one vCPU, where a stop at another place than a page table tells that none was written."""
    if (module := module_of(boot)) is None:
        missing("no module of the guest's kernel (above: why); to enable: have apt find the package of that kernel")
    one = writing(boot, tmp_path, "nokaslr", module, options=("-smp", "1"))
    with one as guest, Microvmi.open(guest.uri) as machine:
        writer = Writer(machine, 0)
        for intercept in (Intercept(EventKind.CR, 3), CR0, CR4):
            machine.toggle_intercept(intercept)
        loaded(machine, writer, IN_MODULE[:3])


def test_every_breakpoint_instruction_of_the_guest_is_told_and_delivered(
    machine: Microvmi, writers: list[Writer]
) -> None:
    machine.toggle_intercept(OWN)
    for writer in writers:
        writer.begin(Mode.BREAKPOINT, ROUNDS)
    events = listened(machine, writers)
    assert Counter(event.vcpu for event in events) == {vcpu: ROUNDS for vcpu in range(VCPUS)}
    for vcpu, writer in enumerate(writers):
        (address,) = {event.virtual_address for event in events if event.vcpu == vcpu}
        assert writer.counted.traps == ROUNDS
        assert writer.counted.trapped_at == address + 1


def test_a_breakpoint_instruction_that_is_retried_is_executed_again(machine: Microvmi, writers: list[Writer]) -> None:
    numbers = iter(range(1, 1000))
    machine.toggle_intercept(OWN, vcpu=0)
    writers[0].begin(Mode.BREAKPOINT, 5)
    events = listened(machine, writers, lambda _: Reply(ReplyAction.RETRY) if next(numbers) % 3 else None)
    assert len(events) == 15
    assert len({(event.virtual_address, event.instruction_length) for event in events}) == 1
    assert writers[0].counted.traps == 5


def test_a_breakpoint_is_not_denied_and_stays_open(machine: Microvmi, writers: list[Writer]) -> None:
    machine.toggle_intercept(OWN, vcpu=0)
    writers[0].begin(Mode.BREAKPOINT, 1)
    event = machine.listen(60)
    assert event is not None
    with pytest.raises(NotSupportedError, match="BREAKPOINT"):
        machine.reply_event(event, Reply(ReplyAction.DENY))
    machine.reply_event(event)
    listened(machine, writers)
    assert writers[0].counted.traps == 1
