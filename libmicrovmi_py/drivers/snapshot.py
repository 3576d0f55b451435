# SPDX-License-Identifier: Apache-2.0
"""Snapshots: copies of machines of one instant. None is opened by a name: ``machine/snapshot.py`` takes them."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.declare import TYPE_CHECKING, dataclass, replace
from libmicrovmi_py.drivers.base import Driver, Region
from libmicrovmi_py.drivers.control import STOPPED, RunState
from libmicrovmi_py.errors import DriverUnavailableError
from libmicrovmi_py.model import Architecture, DriverType, MemoryRange, asked_vcpus, end_of_ram
from libmicrovmi_py.params import Parameters
from libmicrovmi_py.transport.mapping import HostMapping

if TYPE_CHECKING:
    from libmicrovmi_py.arch.state import VcpuState
    from libmicrovmi_py.transport.copy import Copy


class SnapshotMethod(enum.IntEnum):
    """How a snapshot was taken; the numbers of ``enum microvmi_snapshot_method`` in the C header."""

    PAUSED = 1
    """The machine stood while it was copied, by us or anyway."""
    BACKGROUND = 2
    """By its hypervisor, which let it run and kept what was about to change."""
    STATIC = 3
    """Of a dump, or of a snapshot: nothing moves there."""


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """How it was taken; for how many seconds the machine was kept from running for it, at the most; of which moment it
    is, in nanoseconds since 1970; how many bytes of memory it takes."""

    method: SnapshotMethod
    stood: float
    taken_at: int
    data_bytes: int


@dataclass(frozen=True, slots=True)
class Still:
    """What a snapshot is of besides memory. ``states`` are those of all ``vcpus``, or none: nothing is known then."""

    architecture: Architecture
    vcpus: int
    states: tuple[VcpuState, ...]
    info: SnapshotInfo


class SnapshotDriver(Driver):
    """A copy that is finished, and is not changed by anybody any more."""

    name = "snapshot"
    type = DriverType.SNAPSHOT
    automatic = False
    lasting = True

    def __init__(self, copy: Copy, ranges: Sequence[MemoryRange], still: Still) -> None:
        """``ranges`` are those of the copy that exist. Raises ``IoError`` if the system does not map it."""
        self._copy = copy
        self._ranges = tuple(ranges)
        self._still = still
        self.architecture = still.architecture
        self._mapping = HostMapping.of_file(copy.file, image=True)
        self._regions = tuple(
            Region(item.start, item.size, item.kind, self._mapping, copy.offset_of(item.start)) for item in ranges
        )

    @classmethod
    def open(cls, params: Parameters) -> Driver:
        """Raises ``DriverUnavailableError``."""
        raise DriverUnavailableError("a snapshot is not opened: it is taken of an open machine (microvmi_snapshot)")

    def again(self) -> SnapshotDriver:
        """Another one of the same copy."""
        info = self._still.info
        known = SnapshotInfo(SnapshotMethod.STATIC, 0.0, info.taken_at, info.data_bytes)
        return SnapshotDriver(self._copy, self._ranges, replace(self._still, info=known))

    @property
    def info(self) -> SnapshotInfo:
        """What is known about it."""
        return self._still.info

    @property
    def max_addr(self) -> int:
        return end_of_ram(self._ranges)

    @property
    def abilities(self) -> Ability:
        """Nothing is written; what the machine did not tell of its vCPUs is not known."""
        unable = Ability.WRITE
        if not self._still.states:
            unable |= Ability.READ_REGISTERS
        if not self._still.vcpus:
            unable |= Ability.VCPU_COUNT
        return super().abilities & ~unable

    def regions(self) -> Sequence[Region]:
        """The ranges that existed, in the copy."""
        return self._regions

    def memory_map(self) -> Sequence[MemoryRange]:
        """The ranges that existed."""
        return self._ranges

    def run_state(self) -> RunState:
        """A snapshot is always paused."""
        return STOPPED

    def stop(self) -> None:
        """Nothing to do: a snapshot is always paused."""

    def run(self, *, whoever: bool) -> None:
        """Nothing to do: a snapshot cannot run."""

    def vcpu_count(self) -> int:
        """How many vCPUs the machine had."""
        return self._still.vcpus

    def read_states(self, vcpus: Sequence[int] | None) -> list[VcpuState]:
        """The registers of that instant."""
        return [self._still.states[vcpu] for vcpu in asked_vcpus(vcpus, self._still.vcpus)]

    def close(self) -> None:
        self._mapping.close()
