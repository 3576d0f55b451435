# SPDX-License-Identifier: Apache-2.0
"""The driver contract: what every driver is, and the abilities it has or lacks.

A driver is one file (or folder) in this package that ends in ``DRIVER = Class``; nothing else names it. It derives
from :class:`Driver` and implements :meth:`Driver.open`, :attr:`Driver.max_addr` and either :meth:`Driver.read_frame`
or, better, :class:`SupportsRegions`. Loops over frames, padding, partial counts and cursors live above, once for all.

An ability is a protocol: a driver that has its methods has it, any other has not. There are no stubs.
"""

from __future__ import annotations

import abc
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.declare import TYPE_CHECKING, ClassVar, Protocol, dataclass, runtime_checkable
from libmicrovmi_py.drivers.control import SupportsPause
from libmicrovmi_py.events import EventAbilities, Intercept, PageAccess, ReplyAction, Stop
from libmicrovmi_py.model import Architecture, DriverType, MemoryKind, MemoryRange
from libmicrovmi_py.params import Parameters
from libmicrovmi_py.transport.reach import Reach

if TYPE_CHECKING:
    from libmicrovmi_py.arch.state import VcpuState
    from libmicrovmi_py.listed import ListedMachine
    from libmicrovmi_py.transport.copy import Copy
    from libmicrovmi_py.transport.foreign_reads import ForeignReads
    from libmicrovmi_py.transport.watch import Watch


class Driver(abc.ABC):
    """One open virtual machine. Methods may be called from several threads at once: guard what needs it.

    ``name`` is lower case and unique. ``type`` is the number C callers see. ``parameters`` names the keys this driver
    takes besides ``vm_name``, each with one line of help. ``automatic`` is whether the driver takes part when none
    was named. ``static`` is whether memory never changes, so that pages that were read are kept from the start on;
    ``lasting`` is the same of memory that is read in place, of which translations alone are kept.
    ``architecture`` is that of the vCPUs, whose registers are read and written: an object that opened a machine of
    another one says so. ``remedy`` is the way to what this machine cannot do and others of the driver can, for errors;
    ``""`` if there is none. ``identity`` is what no other machine has that is, was or will be on this host since it was
    booted, ``""`` where nothing is known.
    """

    name: ClassVar[str]
    type: ClassVar[DriverType] = DriverType.PLUGIN
    parameters: ClassVar[dict[str, str]] = {}
    automatic: ClassVar[bool] = True
    static: ClassVar[bool] = False
    lasting: ClassVar[bool] = False
    architecture: Architecture = Architecture.X86
    remedy: str = ""
    identity: str = ""

    @classmethod
    @abc.abstractmethod
    def open(cls, params: Parameters) -> Driver:
        """Open the machine that ``params`` names, or raise a ``MicrovmiError`` of one line: the cause, the way out.

        ``params.driver`` is ``None`` if the user named no driver: the name may then be that of another hypervisor's
        machine, so what only bears it, without a proof, is not touched. Every wait has a time limit. Nothing about the
        machine changes.
        """

    @classmethod
    def machines(cls) -> Iterator[ListedMachine]:
        """The machines that there are now, those that cannot be opened included, for ``list_vms``; by default none.

        Every wait has a limit, all together a second, and no machine is disturbed: nobody else's connection is taken,
        nothing is stopped. Where the hypervisor or its library is not there, that is found out at once, and there are
        none. Raises a ``MicrovmiError`` where the hypervisor is there and cannot be asked.
        """
        return iter(())

    @property
    @abc.abstractmethod
    def max_addr(self) -> int:
        """One past the last byte of RAM, in bytes; it does not wait and does not fail."""

    @property
    def abilities(self) -> Ability:
        """What this machine can, for as long as it is open: what there are methods for.

        A driver whose machines differ takes away what this one cannot. ``MAP``, and what the kinds of events tell, is
        found out above.
        """
        return able_by_methods(self)

    @abc.abstractmethod
    def close(self) -> None:
        """Release everything; called once. A paused machine was resumed before."""


@runtime_checkable
class SupportsFrames(Protocol):
    """Reading frame by frame: what every driver without regions has to do.

    It is asked for every frame of the physical address space, and answers cheaply for those that do not exist.
    """

    def read_frame(self, frame: int, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from guest frame ``frame`` at byte ``offset``; never across the frame's end.

        Raises ``NotMappedError`` when the frame does not exist; the buffer is then as it was.
        """


@runtime_checkable
class SupportsFrameWrites(Protocol):
    """Writing frame by frame."""

    def write_frame(self, frame: int, offset: int, data: memoryview) -> None:
        """Write ``data`` into guest frame ``frame`` at byte ``offset``; never across the frame's end.

        Raises ``NotMappedError`` or ``ReadOnlyError`` before anything is written.
        """


@runtime_checkable
class SupportsFrameBatches(Protocol):
    """Reading many frames in one trip to the hypervisor."""

    def read_frames(self, requests: Sequence[tuple[int, int, memoryview]]) -> Sequence[bool]:
        """:meth:`SupportsFrames.read_frame` for each (frame, offset, buffer); ``False`` for one that does not exist."""


@runtime_checkable
class SupportsRanges(Protocol):
    """Reading many adjacent frames in one trip to the hypervisor."""

    def read_range(self, address: int, buffer: memoryview) -> int:
        """Fill ``buffer`` from a guest-physical address on, across frames, and return the length of the valid prefix.

        It ends where a frame does not exist; bytes after it are as they were. Raises an ``AccessError`` for anything
        else that fails, with ``completed`` set.
        """


@runtime_checkable
class SupportsForeignReads(Protocol):
    """Reading by a function of the hypervisor's library, which C then calls without Python and its lock."""

    def foreign_reads(self) -> ForeignReads:
        """How it is called. Asked once. What such a call does not read (memory that does not exist, an error, a library
        that is busy) is then asked for by :meth:`SupportsFrames.read_frame` and its kin, which tell why."""


@runtime_checkable
class SupportsRangeWrites(SupportsFrameWrites, Protocol):
    """Writing many adjacent frames in one trip to the hypervisor."""

    def write_range(self, address: int, data: memoryview) -> None:
        """Write ``data`` from a guest-physical address on, across frames, all of which were found to exist.

        Raises an ``AccessError`` with ``completed`` set.
        """


class Source(Protocol):
    """Bytes that back regions: a host mapping, or the memory of a process."""

    def reach(self) -> Reach:
        """How C reads them, and writes them once they were opened for that."""

    def open_for_writing(self) -> None:
        """See to it that :meth:`reach` allows writing. Raises ``ReadOnlyError`` or ``PermissionDeniedError``."""


@dataclass(frozen=True, slots=True)
class Region:
    """Guest-physical memory that a source holds in one piece: guest address, size, kind, source, offset in it.

    ``unsteady`` is memory that may be taken out of the machine while it runs (a DIMM, a device's): before a write the
    driver, if it is a :class:`SupportsMemoryMap`, is asked for its map anew.
    """

    start: int
    size: int
    kind: MemoryKind
    source: Source
    offset: int
    unsteady: bool = False

    @property
    def end(self) -> int:
        """One past the last byte."""
        return self.start + self.size


class Anew(tuple[Region, ...]):
    """Regions whose memory others may have changed without the machine running: what was kept of it is forgotten."""


@runtime_checkable
class SupportsRegions(Protocol):
    """Memory that can be reached directly, in C; takes the place of frames."""

    @property
    def max_addr(self) -> int:
        """As :attr:`Driver.max_addr`."""

    def regions(self) -> Sequence[Region]:
        """All memory, sorted by ``start``, not overlapping, within 64 bits and within its sources.

        The sequence is immutable and does not wait: a driver whose map changed returns another object, which
        is an :class:`Anew` if what was kept of pages and translations is to be forgotten though the map is the same.
        """


@runtime_checkable
class SupportsMemoryMap(Protocol):
    """Knowing which ranges exist."""

    def memory_map(self) -> Sequence[MemoryRange]:
        """The ranges that exist, sorted by ``start``, not overlapping; asks the hypervisor anew where it can."""


@runtime_checkable
class SupportsVcpus(Protocol):
    """Knowing the vCPUs."""

    def vcpu_count(self) -> int:
        """The number of vCPUs, at least 1."""


@runtime_checkable
class SupportsVcpuStates(SupportsVcpus, Protocol):
    """Reading registers."""

    architecture: Architecture

    def read_states(self, vcpus: Sequence[int] | None) -> list[VcpuState]:
        """The registers of these vCPUs, counted from 0, or of all of them, in one go.

        A state has what the hypervisor tells, and nothing that was made up. That of a vCPU of which nothing is known
        (it is offline, a dump has no note of it) is empty, and no error. :func:`asked_vcpus` checks the numbers.
        """


@runtime_checkable
class SupportsUnstoppedStates(SupportsVcpuStates, Protocol):
    """Reading some registers without what reading all of them does to a machine that runs."""

    def read_unstopped(self, vcpu: int) -> VcpuState:
        """Those of a vCPU that can be had without stopping a machine that runs; the registers of paging in any case."""


@runtime_checkable
class SupportsStateWrites(SupportsVcpuStates, Protocol):
    """Writing registers."""

    @property
    def writable_registers(self) -> Container[str]:
        """The names of those that the hypervisor lets one write. It asks nobody."""

    def write_state(self, vcpu: int, values: Mapping[str, int]) -> None:
        """Write these of ``writable_registers``, which fit, to vCPU ``vcpu``; the others stay as they are.

        All are written or none, as far as that can be told before. Without any it finds out whether the vCPU could be
        written. Raises ``NotSupportedError`` for a vCPU of which they cannot be written, now or ever.
        """


@runtime_checkable
class SupportsEvents(SupportsVcpus, Protocol):
    """Being stopped at what the guest does. A driver only translates: it keeps no ids, no open events and nothing that
    callers want; what can be checked without the hypervisor was checked (``machine/events.py``).

    One thread at a time is in :meth:`poll`; one at a time is in the others, maybe while another is in :meth:`poll`.
    """

    @property
    def event_abilities(self) -> EventAbilities:
        """What this instance can. It asks nobody: whether a driver has events, Python finds out by getting it."""

    def arm(self, intercept: Intercept, vcpus: frozenset[int]) -> None:
        """Stop these vCPUs, and no others, at what ``intercept`` names; empty: none any more.

        Called for changes, and after an error for what was before; what is so already stays so. The first call makes
        this driver the listener where that takes something. A hypervisor that stops all vCPUs or none may stop more:
        what nobody wants is answered above. Raises ``NotSupportedError`` for what the hypervisor or the processor
        refuses, and has armed nothing then; ``DriverUnavailableError`` if somebody else listens to the machine.
        """

    def poll(self, timeout: float) -> Stop | None:
        """The next stop, waiting ``timeout`` seconds at the most (0: look only). Raises ``VmGoneError``."""

    def resume(self, stop: Stop, action: ReplyAction, registers: Mapping[str, int] | None) -> None:
        """Let the vCPU of a stop that :meth:`poll` told go on; ``action`` is one that its kind allows.

        ``registers`` are what those of the frozen struct become, by their names in a state, and 0 for what is not known
        in both; what the hypervisor does not let one write stays as it is. ``None`` leaves all as they are. On an error
        the vCPU stands as before; it is a ``NotSupportedError`` for an answer that this one stop cannot have.
        """

    def quiet(self) -> AbstractContextManager[None]:
        """While it lasts the guest begins nothing new: what ``poll(0)`` does not tell then is not on its way."""

    def end_events(self) -> bool:
        """Stop being the listener: nothing is armed and nothing open any more. Called within :meth:`quiet`.

        ``False``: let the machine run a moment, take what comes, and call again. May be called twice, and for a machine
        that ended.
        """


@runtime_checkable
class SupportsPageAccess(SupportsEvents, Protocol):
    """Taking from the guest, and giving back, the right to access a page. What was taken is known above."""

    def get_page_access(self, frame: int) -> PageAccess:
        """How the guest may access frame ``frame``. Raises ``NotMappedError`` if it does not exist."""

    def set_page_access(self, frame: int, access: PageAccess) -> None:
        """Allow ``access`` and nothing else; any other access is then an event, once that kind is intercepted.

        Raises as :meth:`get_page_access`, and ``NotSupportedError`` for what the processor cannot.
        """


@dataclass(frozen=True, slots=True)
class Taken:
    """A copy of one instant: how many seconds the machine stood still for it, the registers of all vCPUs at that
    instant (none: they are not known), which of the copy's ranges existed, and when it was, in ns since 1970."""

    stood: float
    states: Sequence[VcpuState]
    ranges: Sequence[MemoryRange]
    taken_at: int


@runtime_checkable
class SupportsSnapshots(Protocol):
    """A way to a copy of one instant for which the machine does not have to stand while all of it is copied."""

    def take_snapshot(self, copy: Copy, watch: Watch) -> Taken | None:
        """Fill ``copy``, which is empty and made for the ranges of the memory map. ``None``: not now, or not ever (the
        reason is logged); nothing is changed, and the machine has to be paused instead.

        ``watch.report`` is called often with what is done and what is to be done, in bytes, and ends it by raising.
        Whatever happens, the machine is left as it was found, also within a ``watch.limited()``. Raises ``IoError`` as
        the copy does.
        """


ABILITIES: dict[type, Ability] = {
    SupportsFrameWrites: Ability.WRITE,
    SupportsMemoryMap: Ability.MEMORY_MAP,
    SupportsPause: Ability.PAUSE,
    SupportsVcpus: Ability.VCPU_COUNT,
    SupportsVcpuStates: Ability.READ_REGISTERS,
    SupportsStateWrites: Ability.WRITE_REGISTERS,
    SupportsPageAccess: Ability.PAGE_ACCESS,
    SupportsEvents: Ability.EVENTS,
}
"""Which ability the methods of a protocol are."""

_ALWAYS, _BY_REGIONS = int(Ability.READ | Ability.VIRTUAL), int(Ability.WRITE | Ability.MEMORY_MAP)
_BITS = {protocol: int(ability) for protocol, ability in ABILITIES.items()}
"""As plain numbers, which are put together in no time."""


def able_by_methods(driver: Driver) -> Ability:
    """What a driver has the methods for."""
    able = _ALWAYS
    if isinstance(driver, SupportsRegions):
        able |= _BY_REGIONS
    for protocol, ability in _BITS.items():
        if isinstance(driver, protocol):
            able |= ability
    return Ability(able)


_OPEN_ONLY = Ability.MAP | Ability.PAGE_ACCESS | Ability.EVENTS


def able_by_class(kind: type[Driver]) -> Ability:
    """What all machines of a driver's class can; what only one that is open can tell of itself is not among it."""
    return able_by_methods(kind.__new__(kind)) & ~_OPEN_ONLY
