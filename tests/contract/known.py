# SPDX-License-Identifier: Apache-2.0
"""What a machine tells of itself, taken once: a hypervisor that serves one client has then room for another opening."""

from __future__ import annotations

from dataclasses import dataclass

from contract.target import Target

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers import base
from libmicrovmi_py.drivers.control import SupportsPause
from libmicrovmi_py.model import DriverType, MemoryRange

CAPABILITIES = (
    base.SupportsFrames,
    base.SupportsFrameWrites,
    base.SupportsRegions,
    base.SupportsMemoryMap,
    SupportsPause,
    base.SupportsVcpus,
    base.SupportsVcpuStates,
    base.SupportsStateWrites,
    base.SupportsPageAccess,
    base.SupportsEvents,
)


@dataclass(frozen=True)
class Known:
    """The driver's name, what it can, the memory map, the maximum address, whether the machine is a dump."""

    name: str
    abilities: frozenset[type]
    memory_map: tuple[MemoryRange, ...]
    max_addr: int
    never_runs: bool

    @classmethod
    def of(cls, target: Target) -> Known:
        """Ask the machine through Python."""
        with Microvmi.open(target.uri) as machine:
            driver = machine.driver
            can = machine.abilities.can
            abilities = frozenset(
                one for one in CAPABILITIES if isinstance(driver, one) and base.ABILITIES.get(one, can) in can
            )
            never_runs = driver.type is DriverType.DUMP
            return cls(driver.name, abilities, tuple(machine.memory_map()), machine.max_addr, never_runs)

    def can(self, *capabilities: type) -> bool:
        """Whether the driver has any of these capabilities."""
        return not self.abilities.isdisjoint(capabilities)
