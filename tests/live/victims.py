# SPDX-License-Identifier: Apache-2.0
"""Programs that listen to events, to be killed; and what a guest did since, by what its kernel counts."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterable, Sequence

from libmicrovmi_py.linux.kernel import Kernel

from .guest import VCPUS

_TIMER_INTERRUPTS = 8
"""Where in ``irq_stat`` of a vCPU the kernel counts its timer's interrupts, 4 bytes."""

LISTENS = """
import sys
from libmicrovmi_py import Microvmi
from libmicrovmi_py.events import EventKind, Intercept, PageAccess
vm = Microvmi.open(sys.argv[1])
what, site, *variables = sys.argv[2], *(int(word, 16) for word in sys.argv[3:])
breakpoint_there = Intercept(EventKind.BREAKPOINT, address=site)
if "breakpoint" in what:
    vm.toggle_intercept(breakpoint_there)
if "watch" in what:
    for place in variables:
        vm.toggle_intercept(Intercept(EventKind.VIRTUAL_ACCESS, address=place, size=4, access=PageAccess.WRITE))
if "step" in what:
    vm.toggle_intercept(Intercept(EventKind.SINGLE_STEP), vcpu=0)
vm.reply_event(vm.listen(20))
event = vm.listen(20)
"""
"""Arms what it is told to, and waits for an event to which the machine ran: the first may have come meanwhile."""

ARMS = LISTENS.partition("vm.reply_event")[0]
"""The same, without an event."""

GOES_ON = """
print("now", flush=True)
count = 0
while True:
    if event is not None:
        vm.read_registers(event.vcpu)
        vm.reply_event(event)
    count += 1
    if "toggle" in what and count % 20 == 0:
        vm.toggle_intercept(breakpoint_there, False)
        vm.toggle_intercept(breakpoint_there)
    event = vm.listen(1)
"""

STANDS = """
print("now", flush=True)
sys.stdin.readline()
"""

KINDS = ("breakpoint", "breakpoint step", "step", "watch", "breakpoint watch", "breakpoint toggle watch")


class Counted:
    """The interrupts of both vCPUs' timers, as the guest's kernel counts them, and what is executed at each."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        offsets = kernel.symbols.address("__per_cpu_offset")
        bases = [self._read(offsets + 8 * vcpu, 8) for vcpu in range(VCPUS)]
        irq_stat = kernel.symbols.address("irq_stat") + _TIMER_INTERRUPTS
        self.places = [(base + irq_stat) % (1 << 64) for base in bases]
        self.site = kernel.symbols.address("__sysvec_apic_timer_interrupt")
        self.never = kernel.symbols.address("kernel_halt")
        """What is not executed."""

    def _read(self, address: int, size: int) -> int:
        return int.from_bytes(self._kernel.space.read_virtual(address, size), "little")

    def now(self) -> list[int]:
        """By vCPU."""
        return [self._read(place, 4) for place in self.places]

    def words(self) -> list[str]:
        """For a program: where they are."""
        return [f"{place:x}" for place in (self.site, *self.places)]

    def until(self, more: int, limit: float = 60.0) -> float:
        """Wait until each has grown so much; the seconds that it took."""
        began, first = time.monotonic(), self.now()
        while any(now - was < more for now, was in zip(self.now(), first, strict=True)):
            assert time.monotonic() < began + limit, f"the guest stands: {first}, {self.now()}"
            time.sleep(0.001)
        return time.monotonic() - began


def started(code: str, words: Iterable[str], **options: object) -> subprocess.Popen[str]:
    """A program that says "now" when it listens."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command: Sequence[str] = [sys.executable, "-c", code, *words]
    program: subprocess.Popen[str] = subprocess.Popen(command, **pipes, **options)  # type: ignore[call-overload]
    assert program.stdout is not None
    assert program.stdout.readline() == "now\n"
    return program
