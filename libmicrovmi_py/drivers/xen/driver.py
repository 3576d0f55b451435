# SPDX-License-Identifier: Apache-2.0
"""An open domain: everything that the driver can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from libmicrovmi_py.arch.state import VcpuState
from libmicrovmi_py.drivers.control import RUNS, STOPPED, RunState
from libmicrovmi_py.drivers.saved import xenstate
from libmicrovmi_py.drivers.xen import XenDriver, xenstore
from libmicrovmi_py.drivers.xen.channels import left_behind
from libmicrovmi_py.drivers.xen.layout import Layout
from libmicrovmi_py.drivers.xen.library import Libraries, load_all
from libmicrovmi_py.drivers.xen.mappings import Mapper
from libmicrovmi_py.drivers.xen.memory import GuestMemory, missing
from libmicrovmi_py.drivers.xen.session import free_stopped
from libmicrovmi_py.drivers.xen.stops import Stops
from libmicrovmi_py.drivers.xen.vcpus import Vcpus
from libmicrovmi_py.drivers.xen.xenctrl import Domain, Info
from libmicrovmi_py.errors import MicrovmiError, NotSupportedError, about_a_machine, logger
from libmicrovmi_py.events import EventAbilities, Intercept, PageAccess, ReplyAction, Stop
from libmicrovmi_py.model import MemoryRange, end_of_ram

_log = logger(__name__)


class OpenDomain(XenDriver):
    """An open domain.

    Frames are mapped, many in one call. While this object keeps the domain paused, mappings are kept; see
    ``memory.py``. The maximum address is the end of main memory; Xen's special pages and video memory below 4 GiB
    are in the memory map as DEVICE.
    """

    def __init__(self, libraries: Libraries, domain: Domain) -> None:
        """Raises ``DriverUnavailableError``, ``PermissionDeniedError`` or ``VmGoneError``."""
        self._libraries = libraries
        self._domain = domain
        self._mapper = Mapper(libraries, domain)
        self._memory = GuestMemory(self._mapper, domain)
        self._vcpus = Vcpus(domain)
        self._stops = Stops(libraries, domain, self._vcpus)
        self._layout = Layout(self._mapper, domain)
        self._max_addr = self._layout.end()
        domain.gone = self._gone

    # ------------------------------------------------------------------------------------------------------- memory

    @property
    def max_addr(self) -> int:
        """One past the last byte of main memory, as of the last time the map was read."""
        return self._max_addr

    def memory_map(self) -> Sequence[MemoryRange]:
        """The ranges that exist; see :meth:`Layout.ranges` for their age."""
        ranges = self._layout.ranges()
        self._max_addr = end_of_ram(ranges)
        return ranges

    def read_frame(self, frame: int, offset: int, buffer: memoryview) -> None:
        """Copy from a mapped frame."""
        self._memory.read_frame(frame, offset, buffer)

    def read_range(self, address: int, buffer: memoryview) -> int:
        """Copy from adjacent frames, up to 1024 mapped in one call."""
        return self._memory.read_range(address, buffer)

    def read_frames(self, requests: Sequence[tuple[int, int, memoryview]]) -> Sequence[bool]:
        """Copy from many frames, up to 1024 mapped in one call."""
        return self._memory.read_frames(requests)

    def write_frame(self, frame: int, offset: int, data: memoryview) -> None:
        """Copy into a mapped frame."""
        self._memory.write_frame(frame, offset, data)

    # ---------------------------------------------------------------------------------------------------- run state

    def run_state(self) -> RunState:
        """RUNS or STOPPED. While it is STOPPED and not by :meth:`stop`, no mapping is kept."""
        if self._domain.paused():
            return STOPPED
        self._memory.keep(False)
        return RUNS

    def stop(self) -> None:
        """Pause the domain; Xen counts pauses."""
        self._domain.pause()
        self._memory.keep(True)

    def run(self, *, whoever: bool) -> None:
        """Take our pause back; or all, whoever made them, and vCPUs that a dead listener stopped go on."""
        self._memory.keep(False)
        if not whoever:
            self._domain.take_back()
            return
        self._domain.resume()
        if left_behind(self._domain):
            try:
                free_stopped(self._libraries, self._domain)
            except MicrovmiError as err:
                _log.warning("a listener that died may have left vCPUs stopped: %s", err)

    # -------------------------------------------------------------------------------------------------------- vCPUs

    def vcpu_count(self) -> int:
        """The number of vCPUs, those that are offline included."""
        return self._domain.info().vcpus

    def read_states(self, vcpus: Sequence[int] | None) -> list[VcpuState]:
        """All registers, of one moment; of a vCPU that an event stopped, as they are behind the instruction."""
        return self._vcpus.read(vcpus)

    @property
    def writable_registers(self) -> frozenset[str]:
        """All but those of the APIC (its base, CR8) and XCR0."""
        return xenstate.WRITABLE

    def write_state(self, vcpu: int, values: Mapping[str, int]) -> None:
        """Load the vCPU's state with them. Xen takes what it takes: a state that no processor has may be refused."""
        self._vcpus.write(vcpu, values)

    # ------------------------------------------------------------------------------------------------------- events

    def get_page_access(self, frame: int) -> PageAccess:
        """How the guest may access a frame."""
        self._check_there(frame)
        return self._stops.access(frame)

    def set_page_access(self, frame: int, access: PageAccess) -> None:
        """Take accesses from the guest, as soon as they are intercepted, or give them back.

        They are given back of a frame, too, that the guest has given away since.
        """
        if self._stops.access(frame) == PageAccess.ALL:
            self._check_there(frame)
        self._stops.allow(frame, access)

    def _check_there(self, frame: int) -> None:
        if self._mapper.map((frame,)).errors[0]:
            raise missing(frame)

    @property
    def event_abilities(self) -> EventAbilities:
        """What Xen can stop this domain at, as of its opening."""
        return self._stops.abilities

    def arm(self, intercept: Intercept, vcpus: frozenset[int]) -> None:
        """Switch an intercept on or off; the first one makes this program the domain's listener."""
        self._stops.arm(intercept, vcpus)

    def poll(self, timeout: float) -> Stop | None:
        """The next entry of the ring of events."""
        return self._stops.poll(timeout)

    def resume(self, stop: Stop, action: ReplyAction, registers: Mapping[str, int] | None) -> None:
        """Answer it."""
        self._stops.resume(stop, action, registers)

    def quiet(self) -> AbstractContextManager[None]:
        """Hold the domain."""
        return self._stops.quiet()

    def end_events(self) -> bool:
        """End the monitor."""
        return self._stops.end()

    # ------------------------------------------------------------------------------------------------------ the end

    def _gone(self) -> None:
        """Let go of the pages of a domain that ended: Xen keeps it as long as one is mapped."""
        self._memory.drop()
        self._stops.abandon()

    def close(self) -> None:
        """Release mappings and handles."""
        self._memory.keep(False)
        self._stops.abandon()
        self._mapper.close()
        self._domain.close()


def named(name: str) -> OpenDomain:
    """Open the domain that has that name, or id; raises as :meth:`XenDriver.open`."""
    libraries = load_all()
    with xenstore.connected(libraries) as store:
        names = store.names()
    domid = xenstore.find(name, names)
    with about_a_machine():
        domain = Domain(libraries, domid, names[domid])
        check_kind(domain, domain.info())
        return OpenDomain(libraries, domain)


def check_kind(domain: Domain, info: Info) -> None:
    """Raise ``NotSupportedError`` for a PV domain."""
    if not info.hvm:
        told = f"{domain.name} ({domain.domid})"
        raise NotSupportedError(f"PV domains are not supported, and {told} is one: use HVM or PVH")
