# SPDX-License-Identifier: Apache-2.0
"""Registers of vCPUs: what is checked before a driver is asked, and the frozen struct, which is made of a state."""

from __future__ import annotations

from collections.abc import Mapping

from libmicrovmi_py.arch import Registers
from libmicrovmi_py.arch.state import VcpuState, check_values, differences, registers_of, wanted
from libmicrovmi_py.drivers.base import SupportsEvents, SupportsStateWrites, SupportsUnstoppedStates, SupportsVcpuStates
from libmicrovmi_py.errors import NotSupportedError
from libmicrovmi_py.model import check_architecture


def read_registers(driver: SupportsVcpuStates, vcpu: int) -> Registers:
    """The frozen registers, without stopping a machine that runs if they can be had without; what is not known is 0."""
    return registers_of(read_state(driver, vcpu, unstopped=True))


def read_state(driver: SupportsVcpuStates, vcpu: int, *, unstopped: bool = False) -> VcpuState:
    """What is known of one vCPU. Raises ``NotSupportedError`` if that is nothing.

    ``unstopped``: what can be had without stopping a machine that runs is enough.
    """
    if unstopped and isinstance(driver, SupportsUnstoppedStates):
        state = driver.read_unstopped(vcpu)
    else:
        (state,) = driver.read_states((vcpu,))
    if not state:
        raise NotSupportedError(f"nothing is known of the registers of vCPU {vcpu}")
    return state


def write_registers(driver: SupportsStateWrites, registers: Registers, vcpu: int) -> None:
    """Write what is different in the frozen struct; what the hypervisor does not let one write is left out."""
    check_architecture(registers, driver.architecture)
    changed = differences(registers, read_state(driver, vcpu))
    check_values(driver.architecture, changed)
    known = driver.writable_registers
    driver.write_state(vcpu, {name: value for name, value in changed.items() if name in known})


def write_state(driver: SupportsStateWrites, values: Mapping[str, int], vcpu: int) -> None:
    """Write all of ``values`` or none.

    Raises ``InvalidArgumentError`` for a state of another architecture, a name that is no register's and a value that
    does not fit; ``NotSupportedError`` with the names of those that the hypervisor does not let one write.
    """
    if isinstance(values, VcpuState):
        check_architecture(values, driver.architecture)
    check_values(driver.architecture, values)
    known = driver.writable_registers
    if fixed := [name for name in values if name not in known]:
        raise NotSupportedError(f"the hypervisor does not let one write {', '.join(fixed)}")
    driver.write_state(vcpu, values)


def of_answer(driver: SupportsEvents, registers: Registers, vcpu: int) -> dict[str, int]:
    """What the registers of a vCPU that an event stopped become, by name. Raises ``InvalidArgumentError``."""

    def now() -> Mapping[str, int]:
        return driver.read_states((vcpu,))[0] if isinstance(driver, SupportsVcpuStates) else {}

    values = wanted(registers, now)
    check_values(registers.architecture, values)
    return values
