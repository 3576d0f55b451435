# SPDX-License-Identifier: Apache-2.0
"""Taking a snapshot: a copy of memory and registers of one instant.

Memory is copied twice. While the machine still runs, what holds something finds its place in the copy, which takes ten
times as long as the copying; then the machine is stopped, and all is copied anew to where there is room. A hypervisor
that has a better way is asked first.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.declare import TYPE_CHECKING, dataclass
from libmicrovmi_py.drivers.base import (
    Driver,
    SupportsMemoryMap,
    SupportsRegions,
    SupportsSnapshots,
    SupportsVcpus,
    SupportsVcpuStates,
    Taken,
)
from libmicrovmi_py.drivers.snapshot import SnapshotDriver, SnapshotInfo, SnapshotMethod, Still
from libmicrovmi_py.errors import (
    AccessError,
    DriverUnavailableError,
    InvalidArgumentError,
    IoError,
    MicrovmiError,
    NotSupportedError,
    logger,
)
from libmicrovmi_py.machine.runstate import RunBooks, Stand, one_session
from libmicrovmi_py.memory import PhysicalMemory
from libmicrovmi_py.memory.checks import memory_map
from libmicrovmi_py.memory.filling import Course, DirectFilling, FrameFilling
from libmicrovmi_py.model import MemoryRange
from libmicrovmi_py.transport.copy import Copy
from libmicrovmi_py.transport.watch import Watch

if TYPE_CHECKING:
    from libmicrovmi_py.arch.state import VcpuState

_log = logger(__name__)

_ATTEMPTS = 3
"""So often one is begun again whose machine got another memory map meanwhile."""

_MOST_THREADS = 64
_HELPFUL_THREADS = 4
"""More copy no faster on any machine that was measured: memory is what they wait for."""


@dataclass(frozen=True, slots=True)
class How:
    """As the arguments of ``Microvmi.snapshot``."""

    pause_only: bool = False
    background_only: bool = False
    max_bytes: int = 0
    threads: int = 0

    def check(self) -> None:
        """Raise ``InvalidArgumentError`` for what makes no sense."""
        if self.pause_only and self.background_only:
            raise InvalidArgumentError("a snapshot is either by a pause only, or never by one")
        if self.max_bytes < 0:
            raise InvalidArgumentError(f"max_bytes is {self.max_bytes}: it cannot be less than 0")
        if not 0 <= self.threads <= _MOST_THREADS:
            raise InvalidArgumentError(f"threads are {self.threads}: at most {_MOST_THREADS} copy")


class _MapChangedError(Exception):
    """The machine has other memory now than room was made for."""


class Taking:
    """One snapshot that is being taken."""

    def __init__(
        self, driver: Driver, can: Ability, physical: PhysicalMemory, run: RunBooks, how: How, watch: Watch
    ) -> None:
        self._driver = driver
        self._can = can
        self._physical = physical
        self._run = run
        self._how = how
        self._watch = watch
        self._copy: Copy | None = None

    def taken(self) -> Driver:
        """Take it. Raises what the driver and the copy do, and what :class:`Watch` does."""
        self._how.check()
        self._watch.check()
        if isinstance(self._driver, SnapshotDriver):
            return self._driver.again()
        for _ in range(_ATTEMPTS):
            try:
                return self._attempt()
            except _MapChangedError:
                _log.info("the memory map changed while the machine was copied: once more")
        raise IoError(f"the machine's memory map changed {_ATTEMPTS} times while it was copied: try again")

    def _attempt(self) -> Driver:
        """One that fails leaves nothing, whoever keeps the error."""
        try:
            return self._take()
        except BaseException as err:
            if self._copy is not None:
                self._copy.drop()
            if isinstance(err, DriverUnavailableError):  # of a wait, whose limit may have been ours
                self._watch.check()
            raise

    def _take(self) -> Driver:
        if self._driver.static or self._driver.lasting:
            copy = self._new_copy()
            return self._finished(copy, self._static(copy), SnapshotMethod.STATIC)
        with self._watch.limited():
            runs = self._run.runs()
        if runs and not self._how.pause_only and isinstance(self._driver, SupportsSnapshots):
            copy = self._new_copy()
            taken = self._driver.take_snapshot(copy, self._watch)
            if taken is not None:
                return self._finished(copy, taken, SnapshotMethod.BACKGROUND)
        if runs and self._how.background_only:
            raise NotSupportedError("the hypervisor takes none at the moment while this machine runs")
        copy = self._new_copy()
        return self._finished(copy, self._paused(copy, 2 if runs else 1), SnapshotMethod.PAUSED)

    def _new_copy(self) -> Copy:
        with self._watch.limited(), one_session(self._driver):
            ranges = memory_map(self._driver)
        if not ranges:
            raise IoError("the machine has no memory to copy")
        if self._copy is not None:
            self._copy.drop()
        self._copy = Copy(ranges, self._how.max_bytes)
        return self._copy

    def _static(self, copy: Copy) -> Taken:
        filling, course = self._filling(copy), Course(copy, self._watch, 1)
        filling.fill(course)
        course.finish()
        return Taken(0.0, self._states(), filling.ranges, time.time_ns())

    def _paused(self, copy: Copy, times: int) -> Taken:
        filling, course = self._filling(copy), Course(copy, self._watch, times)
        states: list[VcpuState] = []
        if times > 1:
            self._prepare(copy, filling, course)
        with self._run.standing(self._watch.limited) as stand:
            taken_at = time.time_ns()
            with self._watch.limited():
                self._check_map(copy, stand)
            filling.fill(course, lambda: states.extend(self._states()))
        course.finish()
        return Taken(stand.seconds, states, filling.ranges, taken_at)

    def _prepare(self, copy: Copy, filling: DirectFilling | FrameFilling, course: Course) -> None:
        """Copy while the machine runs. What cannot be read may be memory that was taken out of it."""
        try:
            filling.fill(course)
        except AccessError:
            with self._watch.limited(), one_session(self._driver):
                if tuple(memory_map(self._driver)) != copy.ranges:
                    raise _MapChangedError from None
            raise

    def _check_map(self, copy: Copy, stand: Stand) -> None:
        """Raise ``_MapChangedError`` if room was made for other memory. A driver of regions has read its map when it
        stopped the machine."""
        driver = self._driver
        if stand.stopped and isinstance(driver, SupportsRegions):
            ranges: Sequence[MemoryRange] = [MemoryRange(item.start, item.size, item.kind) for item in driver.regions()]
        else:
            ranges = memory_map(driver)
        if tuple(ranges) != copy.ranges:
            raise _MapChangedError

    def _filling(self, copy: Copy) -> DirectFilling | FrameFilling:
        frames = self._physical.frames
        if frames is not None:
            return FrameFilling(frames, copy, known=isinstance(self._driver, SupportsMemoryMap))
        return DirectFilling(self._physical, copy, self._how.threads or _helpful_threads())

    def _states(self) -> Sequence[VcpuState]:
        """Those of all vCPUs; none where the hypervisor does not tell them."""
        if Ability.READ_REGISTERS not in self._can or not isinstance(self._driver, SupportsVcpuStates):
            return ()
        try:
            with self._watch.limited():
                return self._driver.read_states(None)
        except NotSupportedError as err:
            _log.warning("a snapshot without registers: %s", err)
            return ()

    def _finished(self, copy: Copy, taken: Taken, method: SnapshotMethod) -> Driver:
        copy.finish()
        info = SnapshotInfo(method, taken.stood, taken.taken_at, copy.data_bytes)
        vcpus = len(taken.states) or self._vcpu_count()
        return SnapshotDriver(copy, taken.ranges, Still(self._driver.architecture, vcpus, tuple(taken.states), info))

    def _vcpu_count(self) -> int:
        """Of a machine that tells no registers; 0 if it does not tell them either, or is gone."""
        if Ability.VCPU_COUNT not in self._can or not isinstance(self._driver, SupportsVcpus):
            return 0
        try:
            return self._driver.vcpu_count()
        except MicrovmiError as err:
            _log.warning("a snapshot without the number of vCPUs: %s", err)
            return 0


def _helpful_threads() -> int:
    return min(len(os.sched_getaffinity(0)), _HELPFUL_THREADS)
