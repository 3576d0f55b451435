# SPDX-License-Identifier: Apache-2.0
"""Events of what is found in the guest's code, of guests that a test makes: hostile ones, and other than Linux."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

import pytest
from found_code import FRAME, MODULE, MOV_CR3, MOV_CR4, TEXT, WRMSR, Guest, Standing
from pagewalk import KERNEL, KERNEL_READ, KERNEL_WRITE

from libmicrovmi_py.arch.x86.interrupts import Frame, frame, handler
from libmicrovmi_py.drivers.qemu.events.mechanisms.own_breakpoint import OwnBreakpoints
from libmicrovmi_py.drivers.qemu.events.mechanisms.written import Written
from libmicrovmi_py.drivers.qemu.events.placing import BREAKPOINT, HARDWARE_BREAKPOINT, WRITES, Place
from libmicrovmi_py.errors import NotSupportedError
from libmicrovmi_py.events import EventKind, Intercept, InterceptFlag, ReplyAction, Stop

ALL = frozenset((0,))
DATA = 0xFFFF_8880_0000_0000
"""Where the guest has all of its memory mapped, to write it."""

IDT, STACK, HANDLER = DATA + FRAME + 0x8000, DATA + FRAME + 0x9000, TEXT + 0x100


@pytest.fixture
def guest() -> Guest:
    """One page of code, and all memory as data."""
    guest = Guest()
    guest.tables.map(TEXT, FRAME, rights=KERNEL)
    for address in range(0, len(guest.memory), 1 << 21):
        guest.tables.map(DATA + address, address, 1 << 21, rights=KERNEL_READ | KERNEL_WRITE)
    return guest


@pytest.fixture
def machine(guest: Guest) -> Standing:
    return Standing(guest)


def armed(machine: Standing, intercept: Intercept) -> Written:
    written = Written(machine)  # type: ignore[arg-type]
    assert written.serves(intercept)
    written.arm(intercept, ALL)
    return written


def told(machine: Standing, written: Written | OwnBreakpoints, **values: int) -> list[Stop]:
    machine.values[0].update(values)
    return list(written.heard(machine.stopped()))


OPERAND = {"rax": 0xFFF0, "cr0": 0x8005_0033}
NEW_VALUES: list[tuple[str, bytes, int]] = [
    ("mov %r9,%cr0", b"\x41\x0f\x22\xc1", 0x8005_003B),
    ("clts", b"\x0f\x06", 0x8005_0033),
    ("lmsw %ax", b"\x0f\x01\xf0", 0x8005_0031),
    ("lmsw (%rbx)", b"\x0f\x01\x33", 0x8005_0037),
    ("lmsw (%rdx), which is not mapped", b"\x0f\x01\x32", 0x8005_0031),
]


@pytest.mark.parametrize(("text", "code", "value"), NEW_VALUES, ids=[row[0] for row in NEW_VALUES])
def test_what_cr0_becomes(guest: Guest, machine: Standing, text: str, code: bytes, value: int) -> None:
    guest.put(FRAME + 0x10, code)
    guest.put(FRAME + 0x2000, b"\x46\x00")
    written = armed(machine, Intercept(EventKind.CR, 0))
    (stop,) = told(
        machine,
        written,
        rip=TEXT + 0x10,
        cr0=0x8005_0033 | (8 if text == "clts" else 0),
        rax=0xFFF0,
        rbx=DATA + FRAME + 0x2000,
        rdx=0x1234,
        r9=0x8005_003B,
    )
    assert (stop.kind, stop.number, stop.new_value) == (EventKind.CR, 0, value)
    assert (stop.token, stop.instruction_pointer, stop.instruction_length) == (TEXT + 0x10, TEXT + 0x10, len(code))


def test_an_msr_is_told_by_its_number(guest: Guest, machine: Standing) -> None:
    guest.put(FRAME, WRMSR)
    intercept = Intercept(EventKind.MSR, 0xC000_0080)
    written = armed(machine, intercept)
    assert told(machine, written, rip=TEXT, rcx=0x174) == []
    (stop,) = told(machine, written, rcx=0xFFFF_FFFF_C000_0080, rdx=0x9_0000_0001, rax=0x7_0000_0D01)
    assert (stop.number, stop.new_value) == (0xC000_0080, 0x1_0000_0D01)
    assert (stop.old_value, stop.told_by) == (machine.values[0]["efer"], intercept)
    assert told(machine, written, rip=TEXT + 1) == []


def test_a_user_s_program_at_the_same_address_is_nobody_s_write(guest: Guest, machine: Standing) -> None:
    guest.put(FRAME, MOV_CR3)
    written = armed(machine, Intercept(EventKind.CR, 3, flags=InterceptFlag.EVERY_WRITE))
    assert len(told(machine, written, rip=TEXT)) == 1
    assert told(machine, written, cs_selector=0x33) == []


def test_what_is_there_now_is_told_and_not_what_was_found(guest: Guest, machine: Standing) -> None:
    guest.put(FRAME, MOV_CR4)
    written = armed(machine, Intercept(EventKind.CR, 4))
    guest.put(FRAME, b"\x90" * 3)
    assert told(machine, written, rip=TEXT) == []


def test_changes_of_the_address_space_are_another_s(machine: Standing) -> None:
    written = Written(machine)  # type: ignore[arg-type]
    assert not written.serves(Intercept(EventKind.CR, 3))
    assert not written.serves(Intercept(EventKind.CR, 0, flags=InterceptFlag.OBSERVE))


def test_under_kvm_nothing_is_placed(guest: Guest) -> None:
    machine = Standing(guest, kvm=True)
    with pytest.raises(NotSupportedError, match="KVM"):
        armed(machine, Intercept(EventKind.CR, 4))


def test_without_paging_nothing_is_found(machine: Standing) -> None:
    machine.values[0]["cr0"] = 0x10
    with pytest.raises(NotSupportedError, match="paging"):
        armed(machine, Intercept(EventKind.CR, 4))


# ------------------------------------------------------------------------------------------------ code that appears


def table_places(written: Written) -> set[int]:
    return {place.address for place in written.places if place.type == WRITES}


def code_places(written: Written) -> set[int]:
    return {place.address for place in written.places if place.type == BREAKPOINT}


def test_page_tables_of_code_are_watched_where_the_guest_can_write_them(guest: Guest, machine: Standing) -> None:
    written = armed(machine, Intercept(EventKind.CR, 4))
    tables = {guest.tables.entry_address(TEXT, level) & -0x1000 for level in (1, 2)}
    assert table_places(written) == {DATA + table for table in tables}
    assert all(place.size == 0x1000 for place in written.places)


def test_code_whose_page_table_is_written_is_found_at_that_stop(guest: Guest, machine: Standing) -> None:
    written = armed(machine, Intercept(EventKind.CR, 4))
    guest.put(FRAME + 0x1000, MOV_CR4)
    guest.tables.map(TEXT + 0x5000, FRAME + 0x1000, rights=KERNEL_READ)
    table = DATA + (guest.tables.entry_address(TEXT, 1) & -0x1000)
    assert list(written.heard(machine.stopped(reason=f"watch:{table:x}"))) == []
    assert code_places(written) == set()
    guest.tables.map(TEXT + 0x5000, FRAME + 0x1000, rights=KERNEL)
    assert list(written.heard(machine.stopped(reason=f"watch:{table:x}"))) == []
    assert code_places(written) == {TEXT + 0x5000}


def test_a_new_table_beside_those_of_code_is_watched_as_well(guest: Guest, machine: Standing) -> None:
    written = armed(machine, Intercept(EventKind.CR, 4))
    before = table_places(written)
    guest.put(FRAME + 0x1000, MOV_CR4)
    guest.tables.map(TEXT + (1 << 21), FRAME + 0x1000, rights=KERNEL_READ)
    written.heard(machine.stopped(reason=f"watch:{max(before):x}"))
    assert len(table_places(written)) == len(before) + 1


def test_code_that_was_written_in_place_is_found_while_the_machine_runs(guest: Guest, machine: Standing) -> None:
    written = armed(machine, Intercept(EventKind.CR, 4))
    guest.put(FRAME + 0x40, MOV_CR4)
    machine.runs = True
    end = time.monotonic() + 20
    while code_places(written) != {TEXT + 0x40}:
        assert time.monotonic() < end
        written.idle()
        time.sleep(0.05)


def test_what_changes_until_a_new_table_is_watched_is_looked_at_before_the_machine_goes_on(
    guest: Guest, machine: Standing
) -> None:
    written = armed(machine, Intercept(EventKind.CR, 4))
    guest.put(FRAME + 0x1000, MOV_CR4)
    guest.tables.map(TEXT + (1 << 21), FRAME + 0x1000, rights=KERNEL_READ)
    machine.runs = True
    before, end = written.places, time.monotonic() + 20
    while written.places == before:
        assert time.monotonic() < end
        written.idle()
        time.sleep(0.05)
    guest.tables.map(TEXT + (1 << 21), FRAME + 0x1000, rights=KERNEL)
    machine.runs = False
    written.before_going()
    assert code_places(written) == {TEXT + (1 << 21)}


def test_tables_that_become_too_much_leave_what_was_known(guest: Guest, machine: Standing) -> None:
    guest.put(FRAME, MOV_CR4)
    written = armed(machine, Intercept(EventKind.CR, 4))
    for index in range(512):
        guest.put(guest.tables.base + 8 * index, (guest.tables.base | 3).to_bytes(8, "little"))
    written.heard(machine.stopped(reason="watch:0"))
    assert code_places(written) == {TEXT}


def test_more_tables_than_can_be_watched_are_looked_at_from_time_to_time(guest: Guest, machine: Standing) -> None:
    for index in range(300):
        guest.tables.map(TEXT + (index << 21), FRAME + 0x3000, rights=KERNEL_READ)
    assert table_places(armed(machine, Intercept(EventKind.CR, 4))) == set()


@pytest.mark.parametrize("kind", [Intercept(EventKind.CR, 4), Intercept(EventKind.BREAKPOINT)], ids=["CR", "own"])
def test_who_has_the_monitor_meanwhile_is_hardly_waited_for(guest: Guest, machine: Standing, kind: Intercept) -> None:
    """He may be waiting for the one who polls."""
    guest.put(FRAME, MOV_CR4)
    own = with_handler(guest, machine, gate(HANDLER))
    mechanism: Written | OwnBreakpoints = own if own.serves(kind) else Written(machine)  # type: ignore[arg-type]
    mechanism.arm(kind, ALL)
    places, machine.runs, machine.busy, machine.patience = mechanism.places, True, True, []
    end = time.monotonic() + 20
    while not machine.patience:
        assert time.monotonic() < end
        mechanism.idle()
        time.sleep(0.05)
    assert max(machine.patience) < 1
    assert mechanism.places == places


# ------------------------------------------------------------------------------------------- breakpoints of its own


def gate(address: int, kind: int = 0x8E) -> bytes:
    return struct.pack("<HHBBHII", address & 0xFFFF, 0x10, 0, kind, address >> 16 & 0xFFFF, address >> 32, 0)


def with_handler(guest: Guest, machine: Standing, found: bytes) -> OwnBreakpoints:
    guest.put(IDT - DATA + 3 * 16, found)
    machine.values[0]["idt_base"] = IDT
    return OwnBreakpoints(machine)  # type: ignore[arg-type]


OWN = Intercept(EventKind.BREAKPOINT)
USER = Frame(0x40_1001, 0x33, 0x246, 0x7FFF_0000, 0x2B)


def test_gates() -> None:
    assert handler(gate(HANDLER)) == handler(gate(HANDLER, 0xEF)) == HANDLER
    for other in (gate(HANDLER, 0x0E), gate(HANDLER, 0x85), bytes(16), gate(HANDLER)[:15]):
        assert handler(other) is None


def test_frames() -> None:
    assert frame(struct.pack("<5Q", *USER)) == USER
    for wrong in (USER._replace(rflags=0), USER._replace(cs_selector=0), USER._replace(ss_selector=1 << 20)):
        assert frame(struct.pack("<5Q", *wrong)) is None
    assert frame(bytes(39)) is None


def test_an_own_breakpoint_is_told_at_the_handler_and_can_be_undone(guest: Guest, machine: Standing) -> None:
    own = with_handler(guest, machine, gate(HANDLER))
    own.arm(OWN, ALL)
    assert own.places == {Place(HARDWARE_BREAKPOINT, HANDLER)}
    guest.put(STACK - DATA, struct.pack("<5Q", *USER))
    (stop,) = told(machine, own, rip=HANDLER, rsp=STACK)
    assert (stop.kind, stop.virtual_address, stop.instruction_length) == (EventKind.BREAKPOINT, 0x40_1000, 1)
    assert (stop.intercept, stop.instruction_pointer, stop.token) == (OWN, HANDLER, HANDLER)
    assert own.answer(stop, ReplyAction.CONTINUE) == {}
    assert own.answer(stop, ReplyAction.RETRY) == USER._replace(rip=0x40_1000)._asdict()


def test_the_long_form_of_an_own_breakpoint_has_two_bytes(guest: Guest, machine: Standing) -> None:
    own = with_handler(guest, machine, gate(HANDLER))
    own.arm(OWN, ALL)
    guest.put(FRAME + 0x20, b"\xcd\x03")
    guest.put(STACK - DATA, struct.pack("<5Q", *USER._replace(rip=TEXT + 0x22, cs_selector=0x10, ss_selector=0)))
    (stop,) = told(machine, own, rip=HANDLER, rsp=STACK)
    assert (stop.virtual_address, stop.instruction_length) == (TEXT + 0x20, 2)


@pytest.mark.parametrize("stack", [0x1234, (1 << 64) - 8, STACK + 0x100], ids=["nowhere", "the end", "nonsense"])
def test_a_stack_that_tells_nothing_leaves_one_answer(guest: Guest, machine: Standing, stack: int) -> None:
    own = with_handler(guest, machine, gate(HANDLER))
    own.arm(OWN, ALL)
    (stop,) = told(machine, own, rip=HANDLER, rsp=stack)
    assert stop.answers == frozenset((ReplyAction.CONTINUE,))
    assert stop.instruction_length == 0


GARBAGE: dict[str, Callable[[Standing], object]] = {
    "no such table": lambda machine: machine.values[0].update(idt_base=0x1234_0000),
    "a short table": lambda machine: machine.values[0].update(idt_limit=0x3E),
    "the end of all addresses": lambda machine: machine.values[0].update(idt_base=(1 << 64) - 0x38),
    "another mode": lambda machine: machine.values[0].update(efer=0),
}


@pytest.mark.parametrize("how", GARBAGE)
def test_a_table_of_interrupts_that_makes_no_sense_is_refused(guest: Guest, machine: Standing, how: str) -> None:
    own = with_handler(guest, machine, gate(HANDLER))
    GARBAGE[how](machine)
    with pytest.raises(NotSupportedError, match="handles none"):
        own.arm(OWN, ALL)
    assert own.places == frozenset()


def test_a_handler_that_is_replaced_is_found(guest: Guest, machine: Standing) -> None:
    own = with_handler(guest, machine, gate(HANDLER))
    own.arm(OWN, ALL)
    with_handler(guest, machine, gate(MODULE))
    machine.runs = True
    end = time.monotonic() + 20
    while own.places != {Place(HARDWARE_BREAKPOINT, MODULE)}:
        assert time.monotonic() < end
        own.idle()
        time.sleep(0.05)
    with_handler(guest, machine, bytes(16))
    time.sleep(1.1)
    own.idle()
    assert own.places == {Place(HARDWARE_BREAKPOINT, MODULE)}  # for the moment that it is being written
