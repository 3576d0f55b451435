# SPDX-License-Identifier: Apache-2.0
"""Snapshots for which the machine stands for a moment only: QEMU migrates it into a file and goes on running it.

The capability ``background-snapshot`` has QEMU stop the machine, save its devices, write-protect its RAM and let it go:
a page that the guest is about to change is sent first. What is said here of QEMU is so from 6.0, which was the first to
have it, to 11.1.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from libmicrovmi_py.arch.state import VcpuState
from libmicrovmi_py.declare import TYPE_CHECKING, Any, NamedTuple
from libmicrovmi_py.drivers.base import Taken
from libmicrovmi_py.drivers.qemu.blocks import places
from libmicrovmi_py.drivers.qemu.flatview import Extent
from libmicrovmi_py.drivers.qemu.infotext import by_vcpu
from libmicrovmi_py.drivers.qemu.migration import Pages, Stream, StreamError, apart
from libmicrovmi_py.drivers.qemu.orders import Orders, RefusedError
from libmicrovmi_py.drivers.qemu.room import check_room
from libmicrovmi_py.drivers.qemu.vcpus import Vcpus, aarch64_of, chosen, x86_of
from libmicrovmi_py.errors import IoError, MicrovmiError, VmGoneError, logger
from libmicrovmi_py.model import Architecture, MemoryKind
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.qmp import QmpClient, QmpCommandError
from libmicrovmi_py.transport.shape import shown

if TYPE_CHECKING:
    from libmicrovmi_py.transport.copy import Copy
    from libmicrovmi_py.transport.watch import Watch

_log = logger(__name__)

_BEGINNING = 120.0
"""Seconds until the first byte: before it stops the machine QEMU looks at every page, a second for some GiB."""

_STALLED = 60.0
"""Seconds in which nothing comes, after which nothing is expected to."""

_QUIET = 0.5
"""Seconds in which nothing comes, after which QEMU is asked why."""

_LOOK = 0.01


class Machine(NamedTuple):
    """What is needed of a driver.

    ``session``: a block in which this thread connects once; ``client``: the connection; ``extents`` reads the memory
    map, and makes it the driver's.
    """

    process: Process
    session: Callable[[], AbstractContextManager[None]]
    client: Callable[[], AbstractContextManager[QmpClient]]
    extents: Callable[[], Sequence[Extent]]


class _Before(NamedTuple):
    """What is known of the machine before the instant: where its memory is, and its vCPUs with their text."""

    extents: Sequence[Extent]
    vcpus: Vcpus
    printed: dict[int, str]


class BackgroundSnapshots:
    """Those of one machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._turn = threading.Lock()  # held by who takes one or settles, and is never waited for
        self._unsettled: list[Orders] = []

    def take(self, copy: Copy, watch: Watch) -> Taken | None:
        """As ``SupportsSnapshots.take_snapshot``."""
        if not self._turn.acquire(blocking=False):
            _log.info("no snapshot in the background: another one is under way")
            return None
        try:
            return self._take(copy, watch)
        finally:
            self._turn.release()

    def _take(self, copy: Copy, watch: Watch) -> Taken | None:
        orders = Orders(self._machine.process, self._machine.client)
        self._unsettled.append(orders)
        try:
            return self._taken(copy, watch, orders)
        except (RefusedError, StreamError, QmpCommandError) as err:
            _log.info("no snapshot in the background: %s", err)
            return None
        finally:
            self._settle()

    def settle(self) -> None:
        """Have QEMU be as it was found, again where that did not work before; what still does not is logged.

        The next opening of the machine tries it as well. A thread that takes a snapshot settles its own.
        """
        if self._turn.acquire(blocking=False):
            try:
                self._settle()
            finally:
                self._turn.release()

    def _settle(self) -> None:
        for orders in tuple(self._unsettled):
            try:
                orders.settle()
            except VmGoneError:
                orders.forget()
            except MicrovmiError as err:
                _log.warning("QEMU may still be set up for a snapshot: %s", err)
                continue
            self._unsettled.remove(orders)

    def _taken(self, copy: Copy, watch: Watch, orders: Orders) -> Taken:
        stream = Stream()
        with watch.limited(), self._machine.session():  # nobody of ours pauses the machine until it runs again
            before = self._begin(stream, orders)
            look = _Look(watch, orders)
            head = stream.head(_BEGINNING, look)
            taken_at = time.time_ns()
            parts, ranges = places(dict(head.blocks), before.extents, copy)
            alone, shown_again = apart(parts)
            pages = stream.pages(head, alone, copy)
            _await_run(pages, look)
            orders.begun = True
            if self._machine.extents() != before.extents:
                raise StreamError("the memory map changed meanwhile")
        _read_all(pages, watch, orders, sum(part.size for part in alone))
        for again in shown_again:
            copy.store(again.place, os.pread(copy.fd, again.size, again.origin))
        stood = _stood(orders.settle())
        states = _states(pages.rest(), before)
        return Taken(stood, states, ranges, taken_at)

    def _begin(self, stream: Stream, orders: Orders) -> _Before:
        """Order the migration. Raises ``RefusedError``, ``QmpCommandError`` where that cannot be."""
        with self._machine.client() as client:
            cpus, printed = client.ask("query-cpus-fast"), client.ask_human("info registers -a")
            orders.look(client)
            vcpus = Vcpus(cpus.records())
            before = _Before(self._machine.extents(), vcpus, by_vcpu(printed.human()))
            self._check_private(before.extents)
            check_room(self._machine.process, sum(item.size for item in before.extents))
        with self._machine.client() as client:
            orders.begin(client, stream)
        return before

    def _check_private(self, extents: Sequence[Extent]) -> None:
        """QEMU touches all RAM before: of shared memory every hole would be allocated, and it stands as long as for a
        copy."""
        spans = [(item.host, item.host + item.size) for item in extents if item.kind is MemoryKind.RAM]
        if any(vma.is_shared_file for vma in self._machine.process.mappings(spans)):
            raise RefusedError("its RAM is shared memory")


class _Look:
    """Called while nothing comes: raises if nothing is wanted any more, or QEMU has ended it."""

    def __init__(self, watch: Watch, orders: Orders) -> None:
        self._watch = watch
        self._orders = orders
        self._next = time.monotonic() + _QUIET
        self._over = False

    def __call__(self) -> None:
        self._watch.check()
        if time.monotonic() >= self._next:
            if self._over:  # it was before the last look at the stream, too
                raise StreamError("QEMU has ended it")
            self._over = not self._orders.migrates()
            self._next = time.monotonic() + _QUIET


def _await_run(pages: Pages, look: Callable[[], None]) -> None:
    """Wait for the first pages: QEMU lets the machine run before it sends any."""
    began = time.monotonic()
    while not (progress := pages.wait(_LOOK)).copied:
        look()
        if progress.over or time.monotonic() - began > _STALLED:
            raise StreamError("QEMU sends no page")


def _read_all(pages: Pages, watch: Watch, orders: Orders, total: int) -> None:
    """Wait until all pages have come, and what is behind them."""
    received, since, looked = 0, time.monotonic(), 0.0
    while not (progress := pages.wait(_LOOK)).over:
        watch.report(min(progress.copied, total - 1), total)
        now = time.monotonic()
        if progress.received != received:
            received, since = progress.received, now
        if progress.copied == total or (now - since > _QUIET and now - looked > _QUIET):
            looked = now
            if not orders.migrates():
                pages.end()
        if now - since > _STALLED:
            raise StreamError(f"QEMU has sent nothing for {_STALLED:g} s")
    watch.report(total, total)


def _stood(told: dict[str, Any]) -> float:
    """Seconds for which the machine stood at the most: QEMU tells whole milliseconds."""
    if told.get("status") != "completed":
        raise StreamError(f"QEMU ended it ({shown(told.get('error-desc', told.get('status')))})")
    downtime = told.get("downtime")
    if not isinstance(downtime, int) or not 0 <= downtime < 1 << 40:
        raise StreamError("QEMU does not tell how long the machine stood")
    return (downtime + 1) / 1000


def _states(data: bytes, before: _Before) -> list[VcpuState]:
    """The registers at the instant; none of an architecture that is not known. Raises ``StreamError`` for those that
    cannot be told, of a machine that would tell them if it stood."""
    architecture = before.vcpus.architecture
    if architecture is None:
        return []
    try:
        saved = (x86_of if architecture is Architecture.X86 else aarch64_of)(data, before.vcpus)
    except IoError as err:
        raise StreamError(str(err)) from err
    found = []
    for index in before.vcpus.indexes:
        values = saved.get(index)
        if not values or chosen(architecture, before.printed.get(index, ""), values, stands=False) is not values:
            raise StreamError(f"the registers of vCPU {index} are not understood")
        found.append(VcpuState(architecture, values))
    return found
