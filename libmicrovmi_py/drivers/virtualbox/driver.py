# SPDX-License-Identifier: Apache-2.0
"""An open machine of a VirtualBox with FDP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from libmicrovmi_py.arch.state import VcpuState
from libmicrovmi_py.drivers.control import RunState
from libmicrovmi_py.drivers.virtualbox import VirtualBoxDriver, abi, vcpus
from libmicrovmi_py.drivers.virtualbox.fdp import Machine
from libmicrovmi_py.drivers.virtualbox.memory import Memory
from libmicrovmi_py.drivers.virtualbox.stops import ABILITIES, ABILITIES_OF_SEVERAL, Stops
from libmicrovmi_py.errors import DriverUnavailableError, NotSupportedError
from libmicrovmi_py.events import ALL_VCPUS, EventAbilities, Intercept, ReplyAction, Stop
from libmicrovmi_py.model import PAGE_SHIFT, PHYSICAL_BITS, asked_vcpus, check_vcpu
from libmicrovmi_py.transport.foreign_reads import ForeignReads


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
        self._stops = Stops(machine)
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

    def foreign_reads(self) -> ForeignReads:
        """libFDP reads, one request at a time for all who have the machine open."""
        return self._machine.reads

    def write_frame(self, frame: int, offset: int, data: memoryview) -> None:
        """One request."""
        self._memory.write_range((frame << PAGE_SHIFT) + offset, data)

    def write_range(self, address: int, data: memoryview) -> None:
        """Requests of up to 1 MiB."""
        self._memory.write_range(address, data)

    def run_state(self) -> RunState:
        """RUNS or STOPPED; a machine that stands because of an event counts as running."""
        return self._stops.run_state()

    def stop(self) -> None:
        """Stop the machine."""
        self._stops.stop()

    def run(self, *, whoever: bool) -> None:
        """Let the machine run: FDP does not tell who stopped it. ``whoever`` puts clients aside that died."""
        self._stops.run(whoever=whoever)

    def vcpu_count(self) -> int:
        """The number of vCPUs, as VirtualBox told it at open."""
        return self._machine.vcpus

    def read_states(self, asked: Sequence[int] | None) -> list[VcpuState]:
        """Registers as of the last time that the vCPU stood; see ``vcpus.py`` for what is told of which vCPU."""
        return [vcpus.read(self._machine, vcpu) for vcpu in asked_vcpus(asked, self._machine.vcpus)]

    @property
    def writable_registers(self) -> frozenset[str]:
        """General registers, control registers, MSRs; not segments, tables and debug registers."""
        return vcpus.WRITABLE

    def write_state(self, vcpu: int, values: Mapping[str, int]) -> None:
        """Write those of the first vCPU of a machine that stands.

        Raises ``NotSupportedError`` for other vCPUs, at which VirtualBox crashes, and for a machine that runs.
        """
        check_vcpu(vcpu, self._machine.vcpus)
        if vcpu:
            raise NotSupportedError("FDP writes registers of the first vCPU only")
        if not self._machine.state() & abi.PAUSED:
            raise NotSupportedError("FDP writes registers of a machine that stands only: pause it")
        vcpus.write(self._machine, values)

    @property
    def event_abilities(self) -> EventAbilities:
        """BREAKPOINT at an address, CR, MSR and SINGLE_STEP, for a machine of one vCPU."""
        return ABILITIES if self._machine.vcpus == 1 else ABILITIES_OF_SEVERAL

    def arm(self, intercept: Intercept, vcpus: frozenset[int]) -> None:
        """Place a breakpoint, or remove it. The machine stands meanwhile."""
        self._stops.arm(intercept, bool(vcpus))

    def poll(self, timeout: float) -> Stop | None:
        """Look for a stop, about every millisecond; while single steps are on, execute an instruction."""
        return self._stops.poll(timeout)

    def resume(self, stop: Stop, action: ReplyAction, registers: Mapping[str, int] | None) -> None:
        """Let the machine go on; CONTINUE at a breakpoint or in front of a ``wrmsr`` steps over it first."""
        self._stops.resume(stop, action, registers)

    def quiet(self) -> AbstractContextManager[None]:
        """What a breakpoint stopped that goes, and was not told, goes on with it."""
        return nullcontext()

    def end_events(self) -> bool:
        """There is no listener in FDP."""
        self._stops.end()
        return True

    def close(self) -> None:
        """Give the machine back."""
        self._machine.close()
