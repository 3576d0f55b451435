# SPDX-License-Identifier: Apache-2.0
"""An open machine of a KVM with introspection."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from libmicrovmi_py.arch.state import VcpuState
from libmicrovmi_py.drivers.control import RUNS, STOPPED, RunState
from libmicrovmi_py.drivers.kvm import KvmDriver, abi, vcpus
from libmicrovmi_py.drivers.kvm.machine import Machine, acquire, release
from libmicrovmi_py.drivers.kvm.messages import abilities
from libmicrovmi_py.errors import AccessError, MicrovmiError, logger, not_mapped
from libmicrovmi_py.events import Intercept, PageAccess, ReplyAction, Stop
from libmicrovmi_py.model import PAGE_SHIFT, PAGE_SIZE, asked_vcpus, check_vcpu
from libmicrovmi_py.params import Parameters
from libmicrovmi_py.transport.foreign import load
from libmicrovmi_py.transport.foreign_reads import ForeignReads

_log = logger(__name__)


class OpenMachine(KvmDriver):
    """A machine whose QEMU connects to a socket at which libkvmi listens.

    A read or write is one request for each frame. KVM takes back whatever was asked of it when the connection ends.
    A vCPU is stopped, by a pause as by an event, until an event is answered; see ``stops.py``. Several drivers of a
    process share the machine's one connection (``machine.py``): run state and page accesses are the machine's, and one
    of them listens to events.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._domain = machine.domain
        self._stops = machine.stops
        self.event_abilities = abilities(machine.domain)

    @classmethod
    def of(cls, params: Parameters, timeout: float) -> OpenMachine:
        """As ``KvmDriver.open``, for a socket that was named."""
        foreign = load((params["library"],) if "library" in params else abi.LIBRARIES, abi.DECLARATIONS)
        return cls(acquire(foreign, params["kvm_unix_socket"], params.vm_name, timeout))

    @property
    def max_addr(self) -> int:
        """The end of the highest frame that KVM knew at open, of RAM or of ROM: KVMi does not tell them apart."""
        return self._machine.frames << PAGE_SHIFT

    # ------------------------------------------------------------------------------------------------------- memory

    def read_frame(self, frame: int, offset: int, buffer: memoryview) -> None:
        """One request."""
        error = self._read(frame, offset, buffer)
        if error:
            raise self._failure(error, "kvmi_read_physical", frame, offset)

    def read_range(self, address: int, buffer: memoryview) -> int:
        """One request a frame, as libkvmi has no batch of reads; up to the first frame that does not exist."""
        done = 0
        while done < len(buffer):
            frame, offset = divmod(address + done, PAGE_SIZE)
            end = min(done + PAGE_SIZE - offset, len(buffer))
            error = self._read(frame, offset, buffer[done:end])
            if error == errno.ENOENT:
                break
            if error:
                raise self._failure(error, "kvmi_read_physical", frame, offset, done)
            done = end
        return done

    def foreign_reads(self) -> ForeignReads:
        """libkvmi reads, which puts requests in order by itself."""
        return self._domain.reads(self.max_addr)

    def write_frame(self, frame: int, offset: int, data: memoryview) -> None:
        """One request."""
        address = (frame << PAGE_SHIFT) + offset
        with self._domain.ffi.from_buffer(data) as source:
            error = self._domain.attempt("kvmi_write_physical", address, source, len(data))
        if error:
            raise self._failure(error, "kvmi_write_physical", frame, offset)

    def _read(self, frame: int, offset: int, buffer: memoryview) -> int:
        if frame >= self._machine.frames:
            return errno.ENOENT
        address = (frame << PAGE_SHIFT) + offset
        with self._domain.ffi.from_buffer(buffer) as target:
            return self._domain.attempt("kvmi_read_physical", address, target, len(buffer))

    def _failure(self, error: int, function: str, frame: int, offset: int, done: int = 0) -> MicrovmiError:
        address = (frame << PAGE_SHIFT) + offset
        if error == errno.ENOENT:
            return not_mapped(address)
        failure = self._domain.failure(error, function)
        if isinstance(failure, AccessError):
            failure.address, failure.completed = address, done
        return failure

    # -------------------------------------------------------------------------------------------------------- vCPUs

    def run_state(self) -> RunState:
        """STOPPED if this process paused it: KVMi does not tell of others, and is not asked."""
        return STOPPED if self._stops.paused else RUNS

    def stop(self) -> None:
        """Stop all vCPUs."""
        self._stops.stop()

    def run(self, *, whoever: bool) -> None:
        """Answer the events of the pause, and wait until every vCPU that no other event stops goes on."""
        self._stops.run()

    def vcpu_count(self) -> int:
        """The number of vCPUs that are online."""
        return self._stops.count()

    def read_states(self, asked: Sequence[int] | None) -> list[VcpuState]:
        """One message a vCPU; debug registers and XCR0 are not told."""
        return [self._stops.read(vcpu) for vcpu in asked_vcpus(asked, self._stops.count())]

    @property
    def writable_registers(self) -> frozenset[str]:
        """General registers, rip and rflags."""
        return vcpus.WRITABLE

    def write_state(self, vcpu: int, values: Mapping[str, int]) -> None:
        """Of a vCPU that is stopped."""
        check_vcpu(vcpu, self._stops.count())
        self._stops.write(vcpu, values)

    # ------------------------------------------------------------------------------------------------------- events

    def get_page_access(self, frame: int) -> PageAccess:
        """What was set here, else everything."""
        self.read_frame(frame, 0, memoryview(bytearray(1)))
        return self._machine.accesses.get(frame)

    def set_page_access(self, frame: int, access: PageAccess) -> None:
        """Raises ``NotSupportedError`` for what the processor cannot, as writing without reading."""
        self.read_frame(frame, 0, memoryview(bytearray(1)))
        self._machine.accesses.set(frame, access, self)

    def arm(self, intercept: Intercept, vcpus: frozenset[int]) -> None:
        """Writes of CR0, CR3, CR4 and MSRs, breakpoints of the guest's own, page accesses, single-step."""
        self._machine.arm(intercept, vcpus, self)

    def poll(self, timeout: float) -> Stop | None:
        """The next stop; those of a pause are not told."""
        self._machine.listened_by(self)
        return self._stops.poll(timeout)

    def resume(self, stop: Stop, action: ReplyAction, registers: Mapping[str, int] | None) -> None:
        """Send the answer that the vCPU waits for."""
        self._stops.resume(stop, action, registers)

    def quiet(self) -> AbstractContextManager[None]:
        """Nothing comes behind the answer to a switch that is off."""
        return nullcontext()

    def end_events(self) -> bool:
        """Other contexts of the process may listen then."""
        self._machine.end_events(self)
        return True

    def close(self) -> None:
        """Hang up, unless others use the machine."""
        release(self._machine)
