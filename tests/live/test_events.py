# SPDX-License-Identifier: Apache-2.0
"""Events of a Debian guest of two vCPUs under a stock QEMU: none is missed, by what its kernel counts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from libmicrovmi_py import Microvmi
from libmicrovmi_py.arch.x86.registers import X86Registers
from libmicrovmi_py.errors import DriverUnavailableError
from libmicrovmi_py.events import Event, EventKind, Intercept, PageAccess, Reply
from libmicrovmi_py.linux.kernel import Kernel

from . import initramfs, packages
from .guest import VCPUS, Boot, Config, Guest

STEP = Intercept(EventKind.SINGLE_STEP)
EVENTS, STEPS, SESSIONS = 400, 30, 20
TIMER_INTERRUPTS = 8
"""Where in ``irq_stat`` of a vCPU the kernel counts its timer's interrupts, 4 bytes."""

BUSY = b"(while :; do :; done) & (while :; do :; done) &\n"
"""Both vCPUs have something to do, so that their timers tick."""

HALF_BUSY = b"taskset 2 sh -c 'while :; do :; done' &\n"
"""The second vCPU alone has; the first one sleeps most of the time."""


@pytest.fixture(scope="module")
def busy(boot: Boot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A guest whose vCPUs both compute."""
    initrd = tmp_path_factory.mktemp("busy") / "initrd"
    initramfs.build(packages.busybox(), initrd, {initramfs.SETUP: BUSY})
    with Guest(Config("private", 256), Boot(boot.kernel, initrd)) as guest:
        yield guest


@pytest.fixture(scope="module")
def half_busy(boot: Boot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """One of whose vCPUs the first sleeps."""
    initrd = tmp_path_factory.mktemp("half-busy") / "initrd"
    initramfs.build(packages.busybox(), initrd, {initramfs.SETUP: HALF_BUSY})
    with Guest(Config("private", 256), Boot(boot.kernel, initrd)) as guest:
        yield guest


@pytest.fixture
def before(busy: Guest) -> Iterator[Any]:
    """How the machine was before the test; it is the same after it."""
    devices = busy.monitor.execute("query-chardev")
    assert busy.monitor.status() == "running"
    yield devices
    assert busy.monitor.status() == "running"
    assert labels(busy.monitor.execute("query-chardev")) == labels(devices)


@pytest.fixture
def machine(busy: Guest, before: Any) -> Iterator[Microvmi]:
    """The guest."""
    with Microvmi.open(busy.uri) as machine:
        yield machine


@pytest.fixture(scope="module")
def kernel(busy: Guest) -> Kernel:
    """Its symbols; the machine that it was found in is another than the one that is listened to."""
    return Kernel.find(Microvmi.open(busy.uri))


def labels(devices: Any) -> set[str]:
    """Names of character devices; a monitor's that serves a connection has one more."""
    return {item["label"] for item in devices if not item["label"].startswith("#")}


def timer(kernel: Kernel) -> Intercept:
    """A breakpoint at what every interrupt of a vCPU's timer executes once, and then counts."""
    return Intercept(EventKind.BREAKPOINT, address=kernel.symbols.address("__sysvec_apic_timer_interrupt"))


def counted(kernel: Kernel) -> list[int]:
    """The timers' interrupts by vCPU, as the kernel counts them."""
    offsets = kernel.symbols.address("__per_cpu_offset")
    place = kernel.symbols.address("irq_stat") + TIMER_INTERRUPTS
    bases = [int.from_bytes(kernel.space.read_virtual(offsets + 8 * vcpu, 8), "little") for vcpu in range(VCPUS)]
    return [int.from_bytes(kernel.space.read_virtual((base + place) % (1 << 64), 4), "little") for base in bases]


def registers_of(machine: Microvmi, vcpu: int) -> X86Registers:
    registers = machine.read_registers(vcpu)
    assert isinstance(registers, X86Registers)
    return registers


def listened(machine: Microvmi) -> Event:
    event = machine.listen(20)
    assert event is not None
    return event


def test_every_timer_interrupt_of_both_vcpus_is_told(machine: Microvmi, kernel: Kernel) -> None:
    """From the first of each vCPU on: what it had begun before that it counts later."""
    first: dict[int, int] = {}
    told = Counter[int]()
    machine.toggle_intercept(timer(kernel))
    for _ in range(EVENTS):
        event = listened(machine)
        first.setdefault(event.vcpu, counted(kernel)[event.vcpu])
        assert event.virtual_address == registers_of(machine, event.vcpu).rip == timer(kernel).address
        told[event.vcpu] += 1
        machine.reply_event(event)
    machine.pause()
    while (waiting := machine.listen(0)) is not None:
        told[waiting.vcpu] += 1
        machine.reply_event(waiting)
    last = counted(kernel)
    missed = [last[vcpu] - first[vcpu] - told[vcpu] for vcpu in range(VCPUS)]
    assert all(-1 <= number <= 0 for number in missed), (missed, told)  # one may be told that is not counted yet
    assert min(told[vcpu] for vcpu in range(VCPUS)) > EVENTS // 10
    machine.resume()


def test_a_vcpu_is_stepped_and_no_other(machine: Microvmi) -> None:
    machine.toggle_intercept(STEP, vcpu=1)
    seen = []
    for _ in range(STEPS):
        event = listened(machine)
        assert (event.kind, event.vcpu) == (EventKind.SINGLE_STEP, 1)
        registers = registers_of(machine, 1)
        assert event.virtual_address == registers.rip
        seen.append(registers)  # one that repeats itself stays where it is, and changes others
        machine.reply_event(event)
    assert all(now != then for now, then in zip(seen[1:], seen, strict=False))
    machine.toggle_intercept(STEP, False, vcpu=1)


def of_vcpu(machine: Microvmi, kind: EventKind, vcpu: int) -> Event:
    """The next event of that kind and vCPU; others are answered."""
    while ((event := listened(machine)).kind, event.vcpu) != (kind, vcpu):
        machine.reply_event(event)
    return event


def test_a_step_that_comes_to_a_breakpoint_is_told_before_it(machine: Microvmi, kernel: Kernel) -> None:
    machine.toggle_intercept(timer(kernel))
    machine.reply_event(of_vcpu(machine, EventKind.BREAKPOINT, 1))
    machine.reply_event(of_vcpu(machine, EventKind.BREAKPOINT, 1))
    entry = of_vcpu(machine, EventKind.BREAKPOINT, 1)
    machine.toggle_intercept(STEP, vcpu=1)
    machine.reply_event(entry)
    behind = of_vcpu(machine, EventKind.SINGLE_STEP, 1)
    machine.toggle_intercept(STEP, False, vcpu=1)
    machine.toggle_intercept(Intercept(EventKind.BREAKPOINT, address=behind.virtual_address))
    machine.reply_event(behind)
    while (entry := of_vcpu(machine, EventKind.BREAKPOINT, 1)).virtual_address != timer(kernel).address:
        machine.reply_event(entry)
    machine.toggle_intercept(STEP, vcpu=1)
    machine.reply_event(entry)
    step = of_vcpu(machine, EventKind.SINGLE_STEP, 1)
    machine.reply_event(step)
    while (told := listened(machine)).vcpu != 1:  # the other may have come to a breakpoint in the same moment
        machine.reply_event(told)
    assert step.virtual_address == told.virtual_address == behind.virtual_address
    assert told.kind is EventKind.BREAKPOINT


def test_registers_of_an_answer_are_the_guests(machine: Microvmi, kernel: Kernel) -> None:
    machine.toggle_intercept(timer(kernel))
    event = listened(machine)
    machine.toggle_intercept(STEP, vcpu=event.vcpu)
    registers = registers_of(machine, event.vcpu)
    registers.r11 = 0x1234_5678_9ABC_DEF0  # a function may change it
    machine.reply_event(event, Reply(registers=registers))
    of_vcpu(machine, EventKind.SINGLE_STEP, event.vcpu)
    assert registers_of(machine, event.vcpu).r11 == 0x1234_5678_9ABC_DEF0


def test_a_write_to_a_variable_is_told_by_who_wrote(machine: Microvmi, kernel: Kernel) -> None:
    base = int.from_bytes(kernel.space.read_virtual(kernel.symbols.address("__per_cpu_offset"), 8), "little")
    place = (base + kernel.symbols.address("irq_stat") + TIMER_INTERRUPTS) % (1 << 64)
    machine.pause()
    first = counted(kernel)[0]
    machine.toggle_intercept(Intercept(EventKind.VIRTUAL_ACCESS, address=place, size=4, access=PageAccess.WRITE))
    machine.resume()
    for number in range(1, 101):
        event = listened(machine)
        assert (event.kind, event.vcpu, event.access) == (EventKind.VIRTUAL_ACCESS, 0, PageAccess.WRITE)
        assert counted(kernel)[0] - first == number
        name, _ = kernel.symbols.at(registers_of(machine, 0).rip)
        assert "apic_timer_interrupt" in name
        machine.reply_event(event)


def test_a_pause_holds_when_an_event_is_answered(machine: Microvmi, kernel: Kernel, busy: Guest) -> None:
    machine.toggle_intercept(timer(kernel))
    event = listened(machine)
    machine.pause()
    machine.reply_event(event)
    then = counted(kernel)
    time.sleep(0.2)
    assert machine.listen(0) is None
    assert counted(kernel) == then
    assert busy.monitor.status() in ("debug", "paused")
    machine.resume()
    machine.reply_event(listened(machine))


@pytest.mark.parametrize("paused", [False, True])
def test_an_end_in_the_middle_leaves_the_guest_running(busy: Guest, before: Any, kernel: Kernel, paused: bool) -> None:
    with Microvmi.open(busy.uri) as machine:
        machine.toggle_intercept(timer(kernel))
        machine.toggle_intercept(STEP, vcpu=0)
        listened(machine)
        if paused:
            machine.pause()
    then = counted(kernel)
    end = time.monotonic() + 20
    while [now - was for now, was in zip(counted(kernel), then, strict=True)] < [20, 20]:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert busy.monitor.status() == "running"


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "nothing is intercepted"])
def test_a_step_that_a_vcpu_slept_through_stops_nothing_after_a_pause(half_busy: Guest, closed: bool) -> None:
    """QEMU keeps it for when the vCPU wakes: then nobody is there any more."""
    kernel = Kernel.find(Microvmi.open(half_busy.uri))
    for _ in range(3):
        with Microvmi.open(half_busy.uri) as machine:
            machine.toggle_intercept(STEP, vcpu=0)
            machine.toggle_intercept(timer(kernel), vcpu=1)
            event = of_vcpu(machine, EventKind.BREAKPOINT, 1)
            machine.pause()
            if not closed:
                machine.reply_event(event)
                machine.toggle_intercept(STEP, False, vcpu=0)
                machine.toggle_intercept(timer(kernel), False, vcpu=1)
                machine.resume()
        goes_on(half_busy, kernel, 250)


def goes_on(guest: Guest, kernel: Kernel, ticks: int) -> None:
    """The second vCPU's timer ticks so often."""
    then, end = counted(kernel)[1], time.monotonic() + 60
    while counted(kernel)[1] - then < ticks:
        assert time.monotonic() < end, guest.monitor.status()
        time.sleep(0.05)


def test_the_guest_runs_after_many_ends(busy: Guest, before: Any, kernel: Kernel) -> None:
    """Beside what is watched lie locks of the guest."""
    offsets = kernel.symbols.address("__per_cpu_offset")
    for number in range(SESSIONS):
        vcpu = number % VCPUS
        base = int.from_bytes(kernel.space.read_virtual(offsets + 8 * vcpu, 8), "little")
        place = (base + kernel.symbols.address("cpu_tlbstate")) % (1 << 64)
        with Microvmi.open(busy.uri) as machine:
            machine.toggle_intercept(
                Intercept(EventKind.VIRTUAL_ACCESS, address=place, size=8, access=PageAccess.WRITE)
            )
            if number % 3 == 0:
                machine.toggle_intercept(timer(kernel))
            for _ in range(20):
                if (event := machine.listen(0.2)) is not None:
                    machine.reply_event(event)
        then, end = counted(kernel), time.monotonic() + 20
        while min(now - was for now, was in zip(counted(kernel), then, strict=True)) < 5:
            assert time.monotonic() < end, (number, busy.monitor.human("info registers -a"))
            time.sleep(0.02)


def test_a_machine_that_others_paused_stays_paused(busy: Guest, before: Any, kernel: Kernel) -> None:
    busy.monitor.execute("stop")
    with Microvmi.open(busy.uri) as machine:
        machine.toggle_intercept(timer(kernel))
        assert machine.listen(0.2) is None
        assert busy.monitor.status() == "paused"
    assert busy.monitor.status() == "paused"
    busy.monitor.execute("cont")


def test_who_pauses_it_behind_an_order_of_ours_has_it_paused(machine: Microvmi, busy: Guest) -> None:
    never = Intercept(EventKind.BREAKPOINT, address=0xFFFF_FFFF_FFFF_F000)
    for enabled in (True, False) * 30:
        machine.toggle_intercept(never, enabled)
        busy.monitor.execute("stop")
        assert busy.monitor.status() == "paused", enabled
        busy.monitor.execute("cont")


def test_somebody_elses_stub_is_left_alone(busy: Guest, before: Any, kernel: Kernel) -> None:
    busy.monitor.human(f"gdbserver unix:{busy.directory}/gdb,server=on,wait=off")
    try:
        with Microvmi.open(busy.uri) as machine, pytest.raises(DriverUnavailableError, match="somebody else's"):
            machine.toggle_intercept(timer(kernel))
        assert any(item["label"] == "gdb" for item in busy.monitor.execute("query-chardev"))
    finally:
        busy.monitor.human("gdbserver none")


def test_who_loses_the_stub_is_told(machine: Microvmi, busy: Guest, kernel: Kernel) -> None:
    machine.toggle_intercept(Intercept(EventKind.BREAKPOINT, address=kernel.symbols.address("kernel_halt")))
    busy.monitor.human(f"gdbserver unix:{busy.directory}/gdb,server=on,wait=off")
    with pytest.raises(DriverUnavailableError, match="somebody else's"):
        machine.listen(5)
    busy.monitor.human("gdbserver none")
