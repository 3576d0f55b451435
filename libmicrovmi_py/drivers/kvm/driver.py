# SPDX-License-Identifier: Apache-2.0
"""An open machine of a KVM with introspection."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from libmicrovmi_py.drivers.base import RUNS, STOPPED, RunState, check_vcpu
from libmicrovmi_py.drivers.kvm import KvmDriver, abi
from libmicrovmi_py.drivers.kvm.machine import Machine, acquire, release
from libmicrovmi_py.errors import AccessError, MicrovmiError, NotMappedError, logger
from libmicrovmi_py.events import Event, Intercept, PageAccess, Reply
from libmicrovmi_py.model import PAGE_SHIFT, PAGE_SIZE, Registers
from libmicrovmi_py.params import Parameters
from libmicrovmi_py.transport.foreign import load

_log = logger(__name__)


class OpenMachine(KvmDriver):
    """A machine whose QEMU connects to a socket at which libkvmi listens.

    A read or write is one request for each frame. KVM takes back whatever was asked of it when the connection ends.
    A vCPU is stopped, by a pause as by an event, until an event is answered; see ``vcpus.py``. Several drivers of a
    process share the machine's one connection (``machine.py``): run state and page accesses are the machine's, and one
    of them listens to events.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._domain = machine.domain
        self._vcpus = machine.vcpus

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

    def read_frames(self, requests: Sequence[tuple[int, int, memoryview]]) -> Sequence[bool]:
        """One request each."""
        found = []
        for frame, offset, buffer in requests:
            error = self._read(frame, offset, buffer)
            if error not in (0, errno.ENOENT):
                raise self._failure(error, "kvmi_read_physical", frame, offset)
            found.append(not error)
        return found

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
            return NotMappedError(f"no memory at physical address {address:#x}", address=address)
        failure = self._domain.failure(error, function)
        if isinstance(failure, AccessError):
            failure.address, failure.completed = address, done
        return failure

    # -------------------------------------------------------------------------------------------------------- vCPUs

    def run_state(self) -> RunState:
        """STOPPED if this process paused it: KVMi does not tell of others, and is not asked."""
        return STOPPED if self._vcpus.paused else RUNS

    def stop(self) -> None:
        """Stop all vCPUs."""
        self._vcpus.pause()

    def run(self, *, whoever: bool) -> None:
        """Answer the events of the pause, and wait until every vCPU that no other event stops goes on."""
        self._vcpus.resume()

    def vcpu_count(self) -> int:
        """The number of vCPUs that are online."""
        return self._vcpus.count()

    def read_registers(self, vcpu: int) -> Registers:
        """All members of ``X86Registers``."""
        check_vcpu(vcpu, self._vcpus.count())
        return self._vcpus.read_registers(vcpu)

    def write_registers(self, vcpu: int, registers: Registers) -> None:
        """General registers, rip and rflags, of a vCPU that is stopped; all others stay as they are."""
        check_vcpu(vcpu, self._vcpus.count())
        self._vcpus.write_registers(vcpu, registers)

    # ------------------------------------------------------------------------------------------------------- events

    def get_page_access(self, frame: int) -> PageAccess:
        """What was set here, else everything."""
        self.read_frame(frame, 0, memoryview(bytearray(1)))
        return self._machine.accesses.get(frame)

    def set_page_access(self, frame: int, access: PageAccess) -> None:
        """Raises ``NotSupportedError`` for what the processor cannot, as writing without reading."""
        self.read_frame(frame, 0, memoryview(bytearray(1)))
        self._machine.accesses.set(frame, access, self)

    def toggle_intercept(self, vcpu: int, intercept: Intercept, enabled: bool) -> None:
        """Writes of CR0, CR3, CR4 and MSRs, breakpoints of the guest's own, page accesses, single-step."""
        self._machine.claim(self)
        self._machine.intercepts.toggle(vcpu, self._vcpus.count(), intercept, enabled)

    def listen(self, timeout: float) -> Event | None:
        """The next event; those of a pause are not told."""
        self._machine.listened_by(self)
        return self._vcpus.listen(timeout)

    def reply_event(self, event: Event, reply: Reply) -> None:
        """CONTINUE for all, RETRY for breakpoints, page accesses and single-step, DENY for CR and MSR."""
        self._machine.listened_by(self)
        self._vcpus.reply(event, reply)

    def release_events(self) -> None:
        """Switch everything off and answer what is open; nothing to be done for a machine that ended."""
        self._machine.release_events(self)

    def close(self) -> None:
        """Hang up, unless others use the machine."""
        release(self._machine)
