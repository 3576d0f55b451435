# SPDX-License-Identifier: Apache-2.0
"""The part of the whole object that is about snapshots; how one is taken is loaded when the first is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.drivers.base import Driver
from libmicrovmi_py.errors import NotSupportedError, was_closed
from libmicrovmi_py.machine.books import Books
from libmicrovmi_py.machine.runstate import RunBooks
from libmicrovmi_py.memory import PhysicalMemory
from libmicrovmi_py.model import MemoryRange
from libmicrovmi_py.transport.fds import StandardStreamsHeld

if TYPE_CHECKING:
    from libmicrovmi_py.drivers.snapshot import SnapshotInfo
    from libmicrovmi_py.machine.microvmi import Microvmi


class Snapshots:
    """What ``Microvmi`` has for them."""

    driver: Driver
    _physical: PhysicalMemory
    _run: RunBooks | None
    _books: Books
    _no_snapshots = False

    if TYPE_CHECKING:

        @property
        def _can(self) -> Ability: ...

        @classmethod
        def from_driver(cls, driver: Driver) -> Microvmi: ...

        def _check_open(self) -> None: ...

    def snapshot(
        self,
        *,
        pause_only: bool = False,
        background_only: bool = False,
        max_bytes: int = 0,
        threads: int = 0,
        timeout: float | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> Microvmi:
        """Memory and the registers of all vCPUs at one instant: another machine, read-only, which outlives this one.

        ``pause_only``: the machine stands while it is copied, whatever else its hypervisor can; ``background_only``:
        it is not paused for it, which is ``NotSupportedError`` where its hypervisor has no other way at the moment.
        ``max_bytes`` is what the copy may take, 0 for as much as the machine has; ``threads`` copy, 0 for as many as
        help; ``timeout`` is for all of it, in seconds. ``progress`` is called with bytes that are done and are to be
        done, also while the machine stands; it ends it by returning ``False``, or by raising what is raised here then.
        It must not close this object.

        The machine is left as it was found; on an error nothing is left. One that the hypervisor takes while the
        machine runs is not interrupted: who ends it, or whose time is over, waits for the hypervisor's end of it.
        Raises ``NotSupportedError`` for a machine that cannot be paused, ``CancelledError``, ``TimeoutExpiredError``,
        ``IoError`` without memory for it.
        """
        self._check_open()
        with StandardStreamsHeld():
            from libmicrovmi_py.machine import snapshot as taking  # of whom takes none, nobody needs it
            from libmicrovmi_py.transport.watch import Watch
        if self._run is None or Ability.PAUSE not in self._can:
            reason = "a copy of it would be of many moments"
            raise NotSupportedError(f"the {self.driver.name} driver cannot pause the machine: {reason}")
        how = taking.How(pause_only, background_only, max_bytes, threads)
        watch = Watch(progress, timeout, self.check_wanted)
        with self._books.touched():
            taken = taking.Taking(self.driver, self._can, self._physical, self._run, how, watch).taken()
        return type(self).from_driver(taken)

    @property
    def snapshot_info(self) -> SnapshotInfo:
        """What is known about a snapshot. Raises ``NotSupportedError`` for what is none."""
        self._check_open()
        with StandardStreamsHeld():
            from libmicrovmi_py.drivers.snapshot import SnapshotDriver
        if not isinstance(self.driver, SnapshotDriver):
            raise NotSupportedError(f"this is no snapshot: it was opened by the {self.driver.name} driver")
        return self.driver.info

    def diff(self, newer: Microvmi, start: int = 0) -> Iterator[MemoryRange]:
        """The frames whose memory is not the same in ``newer``, as runs of whole frames, ascending, from ``start`` on.

        Both are any machines. Memory is compared as the iterator is asked. What could not be read is raised behind all
        that was found before it, as ``AccessError`` with the address to go on at, or the error of its driver.
        """
        self._check_open()
        with StandardStreamsHeld():
            from libmicrovmi_py.memory import difference  # most never compare
        return difference.runs(self._physical, newer.physical, start)

    def end_snapshots(self) -> None:
        """End those that other threads are taking of this machine, and all later ones, before it is closed.

        So end the files that others are writing of it.
        """
        self._no_snapshots = True

    def check_wanted(self) -> None:
        """Raise ``InvalidContextError`` if the machine is closed, or about to be: long work on it has to end."""
        self._check_open()
        if self._no_snapshots:
            raise was_closed("meanwhile")
        if self._run is not None:
            self._run.check_wanted()
