# SPDX-License-Identifier: Apache-2.0
"""The vCPUs of a machine that stands, as a debugger sees them: registers, and memory by their page tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from libmicrovmi_py.arch.state import VcpuState
from libmicrovmi_py.errors import InvalidArgumentError, MicrovmiError, NotMappedError, NotSupportedError, VmGoneError
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.memory.virtual import AddressSpace
from libmicrovmi_py.model import Architecture
from libmicrovmi_py.tools.gdb.registers import Register, layout_of, shown, stack_register

_LARGEST_COUNT = 4096
"""vCPUs that are shown; there is no machine with more."""


class Vcpus:
    """What is known of the vCPUs at this moment; it is read once, and again after :meth:`forget`.

    ``kernel`` is the address space of the guest's kernel where somebody knows it: kernels' addresses are read through
    it if a vCPU's tables do not have them. ``physical``: memory is by guest-physical address.
    """

    def __init__(self, machine: Microvmi, kernel: AddressSpace | None = None) -> None:
        self._machine = machine
        self._kernel = kernel
        self._states: Sequence[VcpuState] | None = None
        self._spaces: dict[int, list[AddressSpace]] = {}
        self.why_unknown = ""
        self.physical = False
        self.architecture = machine.driver.architecture
        self.count = self._counted()
        self.layout = layout_of(self.architecture, self.state(0))

    def _counted(self) -> int:
        """At least one: a debugger shows nothing of a machine without threads."""
        try:
            return min(max(self._machine.vcpu_count(), 1), _LARGEST_COUNT)
        except NotSupportedError:
            return 1

    def forget(self) -> None:
        """The machine ran, or was written to."""
        self._states = None
        self._spaces.clear()

    # --------------------------------------------------------------------------------------------------- registers

    def state(self, vcpu: int) -> VcpuState:
        """All that is known of one; nothing is where a machine tells no registers. Raises ``VmGoneError``."""
        if self._states is None:
            self._states = self._read()
        if vcpu < len(self._states):
            return self._states[vcpu]
        return VcpuState(self.architecture, {})

    def _read(self) -> Sequence[VcpuState]:
        try:
            return self._machine.read_states()
        except VmGoneError:
            raise
        except MicrovmiError as err:
            self.why_unknown = str(err)
            return []

    def values(self, vcpu: int) -> Mapping[str, int]:
        """The registers as gdb has them. The instruction pointer, which it cannot do without, is 0 if not known."""
        return {self.layout.pc: 0, **shown(self.architecture, self.state(vcpu))}

    def write(self, vcpu: int, values: Mapping[Register, int]) -> None:
        """Write registers. Raises as ``Microvmi.write_state`` does, ``NotSupportedError`` for what no state has."""
        state = self.state(vcpu)
        wanted: dict[str, int] = {}
        for register, value in values.items():
            if not register.source:
                raise NotSupportedError(f"{register.name} is not known, and cannot be written")
            name = register.source
            if self.architecture is Architecture.AARCH64 and name == "sp":
                name = stack_register(state)
            wanted[name] = value
        try:
            self._machine.write_state(wanted, vcpu)
        finally:
            self.forget()

    # ------------------------------------------------------------------------------------------------------ memory

    def read(self, vcpu: int, address: int, size: int) -> bytes:
        """Up to ``size`` bytes, as many as there are in one piece. Raises ``NotMappedError`` if there are none."""
        if self.physical:
            buffer = bytearray(size)
            done = self._machine.read_physical_into(address, buffer)
            if not done and size:
                raise NotMappedError(f"no memory at physical address {address:#x}", address=address)
            return bytes(buffer[:done])
        return self._read_virtual(vcpu, address, min(size, (1 << 64) - address))

    def _read_virtual(self, vcpu: int, address: int, size: int) -> bytes:
        buffer = bytearray(size)
        view = memoryview(buffer)
        done = 0
        while done < size:
            more = next(
                (
                    more
                    for space in self._tried(vcpu, address + done)
                    if (more := space.read_virtual_into(address + done, view[done:]))
                ),
                0,
            )
            if not more:
                break
            done += more
        if size and not done:
            raise NotMappedError(f"no memory at virtual address {address:#x}", address=address)
        return bytes(buffer[:done])

    def write_memory(self, vcpu: int, address: int, data: bytes) -> None:
        """Write all or nothing, whatever the rights of the pages. Raises as the library's writes do."""
        if self.physical:
            self._machine.write_physical(address, data)
            return
        if address + len(data) > 1 << 64:
            raise NotMappedError("the last address is 2**64 - 1", address=address)
        self.space(vcpu, address).write_virtual(address, data)

    def space(self, vcpu: int, address: int) -> AddressSpace:
        """The address space that has an address; that of the vCPU if none has. Raises ``NotSupportedError``."""
        spaces = self._tried(vcpu, address)
        if not spaces:
            raise NotSupportedError(self.why_unknown or f"vCPU {vcpu} tells no page tables")
        found = (space for space in spaces if space.translate(address).physical_address is not None)
        return next(found, spaces[0])

    def _tried(self, vcpu: int, address: int) -> list[AddressSpace]:
        """Where an address is looked up: the programs' addresses by the vCPU's tables alone."""
        if vcpu not in self._spaces:
            self._spaces[vcpu] = self._spaces_of(vcpu)
        spaces = self._spaces[vcpu]
        return spaces if address >> 63 or not spaces else spaces[:1]

    def _spaces_of(self, vcpu: int) -> list[AddressSpace]:
        """That of the vCPU, its twin where the kernel isolates its tables, and the kernel's own."""
        found = []
        try:
            found.append(self._machine.address_space(vcpu=vcpu))
            found.append(found[0].twin())
        except VmGoneError:
            raise
        except (NotSupportedError, InvalidArgumentError) as err:
            if not found:
                self.why_unknown = str(err)
        return [*found, self._kernel] if self._kernel is not None else found
