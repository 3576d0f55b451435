# SPDX-License-Identifier: Apache-2.0
"""An open machine of a VirtualBox with FDP."""

from __future__ import annotations

from libmicrovmi_py.drivers.base import RunState, check_vcpu
from libmicrovmi_py.drivers.virtualbox import VirtualBoxDriver, abi, registers
from libmicrovmi_py.drivers.virtualbox.events import Debugger
from libmicrovmi_py.drivers.virtualbox.machine import Machine
from libmicrovmi_py.drivers.virtualbox.memory import Memory
from libmicrovmi_py.errors import DriverUnavailableError, NotSupportedError
from libmicrovmi_py.events import ALL_VCPUS, Event, Intercept, Reply
from libmicrovmi_py.model import PAGE_SHIFT, PHYSICAL_BITS
from libmicrovmi_py.model import Registers as CpuRegisters


class OpenMachine(VirtualBoxDriver):
    """A machine of a VirtualBox that was built with FDP.

    FDP answers one request at a time, for all who use the machine. It holds only the first vCPU still; registers of
    the others are told in part, and events need a machine of one vCPU.
    """

    def __init__(self, machine: Machine) -> None:
        """Raises ``DriverUnavailableError`` for a machine that tells no memory or no vCPU."""
        if not 0 < machine.ram_size <= 1 << PHYSICAL_BITS or not 0 < machine.vcpus < ALL_VCPUS:
            what = f"{machine.ram_size} bytes of memory, {machine.vcpus} vCPUs"
            raise DriverUnavailableError(f"the machine {machine.name} tells what cannot be: {what}")
        self._machine = machine
        self._memory = Memory(machine)
        self._debugger = Debugger(machine)
        self._max_addr = self._memory.end_of_ram()

    @classmethod
    def of(cls, name: str, library: str, timeout: float) -> OpenMachine:
        """As ``VirtualBoxDriver.open``."""
        machine = Machine(name, library, timeout)
        try:
            return cls(machine)
        except BaseException:
            machine.close()
            raise

    @property
    def max_addr(self) -> int:
        """One past the last byte of RAM, as VirtualBox told it at open."""
        return self._max_addr

    def read_frame(self, frame: int, offset: int, buffer: memoryview) -> None:
        """One request."""
        self._memory.read_exactly((frame << PAGE_SHIFT) + offset, buffer)

    def read_range(self, address: int, buffer: memoryview) -> int:
        """Requests of up to 2 MiB."""
        return self._memory.read_range(address, buffer)

    def write_frame(self, frame: int, offset: int, data: memoryview) -> None:
        """One request."""
        self._memory.write_range((frame << PAGE_SHIFT) + offset, data)

    def write_range(self, address: int, data: memoryview) -> None:
        """Requests of up to 1 MiB."""
        self._memory.write_range(address, data)

    def run_state(self) -> RunState:
        """RUNS or STOPPED; a machine that stands because of an event counts as running."""
        return self._debugger.run_state()

    def stop(self) -> None:
        """Stop the machine."""
        self._debugger.stop()

    def run(self, *, whoever: bool) -> None:
        """Let the machine run: FDP does not tell who stopped it."""
        self._debugger.run()

    def vcpu_count(self) -> int:
        """The number of vCPUs, as VirtualBox told it at open."""
        return self._machine.vcpus

    def read_registers(self, vcpu: int) -> CpuRegisters:
        """Registers as of the last time that the vCPU stood; see ``registers.py`` for what is told of which vCPU."""
        check_vcpu(vcpu, self._machine.vcpus)
        return registers.read(self._machine, vcpu)

    def write_registers(self, vcpu: int, values: CpuRegisters) -> None:
        """Write those of the first vCPU of a machine that stands. Segments and tables stay as they are.

        Raises ``NotSupportedError`` for other vCPUs, at which VirtualBox crashes, and for a machine that runs.
        """
        check_vcpu(vcpu, self._machine.vcpus)
        if vcpu:
            raise NotSupportedError("FDP writes registers of the first vCPU only")
        if not self._machine.state() & abi.PAUSED:
            raise NotSupportedError("FDP writes registers of a machine that stands only: pause it")
        registers.write(self._machine, values)

    def toggle_intercept(self, vcpu: int, intercept: Intercept, enabled: bool) -> None:
        """BREAKPOINT at an address, CR, MSR and SINGLE_STEP, for a machine of one vCPU."""
        if vcpu != ALL_VCPUS:
            check_vcpu(vcpu, self._machine.vcpus)
        self._debugger.toggle(intercept, enabled)

    def listen(self, timeout: float) -> Event | None:
        """Look for a stop, about every millisecond."""
        return self._debugger.listen(timeout)

    def reply_event(self, event: Event, reply: Reply) -> None:
        """CONTINUE for all; DENY for MSR; RETRY for all but CR."""
        self._debugger.reply(event, reply)

    def release_events(self) -> None:
        """Remove every breakpoint that was placed here."""
        self._debugger.release()

    def close(self) -> None:
        """Give the machine back."""
        self._machine.close()
