# SPDX-License-Identifier: Apache-2.0
"""An open domain: everything that the driver can do."""

from __future__ import annotations

from collections.abc import Sequence

from libmicrovmi_py.drivers.base import RUNS, STOPPED, RunState
from libmicrovmi_py.drivers.xen import XenDriver, domains
from libmicrovmi_py.drivers.xen.channels import left_behind
from libmicrovmi_py.drivers.xen.control import Control
from libmicrovmi_py.drivers.xen.events import Listener
from libmicrovmi_py.drivers.xen.layout import Layout
from libmicrovmi_py.drivers.xen.libraries import Libraries, load_all
from libmicrovmi_py.drivers.xen.mappings import Mapper
from libmicrovmi_py.drivers.xen.memory import GuestMemory, missing
from libmicrovmi_py.drivers.xen.session import Session, connect, free_stopped
from libmicrovmi_py.drivers.xen.vcpus import Vcpus
from libmicrovmi_py.errors import MicrovmiError, NotSupportedError, about_a_machine, logger
from libmicrovmi_py.events import Event, Intercept, PageAccess, Reply
from libmicrovmi_py.model import MemoryRange, Registers, end_of_ram

_log = logger(__name__)


class Domain(XenDriver):
    """An open domain.

    Frames are mapped, many in one call. While this object keeps the domain paused, mappings are kept; see
    ``memory.py``. The maximum address is the end of main memory; Xen's special pages and video memory below 4 GiB
    are in the memory map as DEVICE.
    """

    def __init__(self, libraries: Libraries, control: Control) -> None:
        """Raises ``DriverUnavailableError``, ``PermissionDeniedError`` or ``VmGoneError``."""
        self._libraries = libraries
        self._control = control
        self._mapper = Mapper(libraries, control)
        self._memory = GuestMemory(self._mapper, control)
        self._vcpus = Vcpus(control)
        self._listener = Listener(control, self._vcpus, self._connect)
        self._layout = Layout(self._mapper, control)
        self._max_addr = self._layout.end()
        control.gone = self._gone

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
        if self._control.paused():
            return STOPPED
        self._memory.keep(False)
        return RUNS

    def stop(self) -> None:
        """Pause the domain; Xen counts pauses."""
        self._control.pause()
        self._memory.keep(True)

    def run(self, *, whoever: bool) -> None:
        """Take our pause back; or all, whoever made them, and vCPUs that a dead listener stopped go on."""
        self._memory.keep(False)
        if not whoever:
            self._control.take_back()
            return
        self._control.resume()
        if left_behind(self._control):
            try:
                free_stopped(self._libraries, self._control)
            except MicrovmiError as err:
                _log.warning("a listener that died may have left vCPUs stopped: %s", err)

    # -------------------------------------------------------------------------------------------------------- vCPUs

    def vcpu_count(self) -> int:
        """The number of vCPUs, those that are offline included."""
        return self._control.info().vcpus

    def read_registers(self, vcpu: int) -> Registers:
        """The registers of a vCPU; of one that an event stopped, as they are behind the instruction."""
        return self._vcpus.read(vcpu)

    def write_registers(self, vcpu: int, registers: Registers) -> None:
        """Change all registers but the APIC base; attributes of segments stay as they are."""
        self._vcpus.write(vcpu, registers)

    # ------------------------------------------------------------------------------------------------------- events

    def get_page_access(self, frame: int) -> PageAccess:
        """How the guest may access a frame."""
        if self._mapper.map((frame,)).errors[0]:
            raise missing(frame)
        return self._listener.access(frame)

    def set_page_access(self, frame: int, access: PageAccess) -> None:
        """Take accesses from the guest, as soon as they are intercepted."""
        self.get_page_access(frame)
        self._listener.allow(frame, access)

    def toggle_intercept(self, vcpu: int, intercept: Intercept, enabled: bool) -> None:
        """Switch an intercept on or off; the first one makes this program the domain's listener."""
        self._listener.toggle(vcpu, intercept, enabled)

    def listen(self, timeout: float) -> Event | None:
        """Wait for an event."""
        return self._listener.listen(timeout)

    def reply_event(self, event: Event, reply: Reply) -> None:
        """Answer an event."""
        self._listener.reply(event, reply)

    def release_events(self) -> None:
        """Disarm, answer everything, end the monitor."""
        self._listener.release()

    def _connect(self) -> Session:
        return connect(self._libraries, self._control)

    # ------------------------------------------------------------------------------------------------------ the end

    def _gone(self) -> None:
        """Let go of the pages of a domain that ended: Xen keeps it as long as one is mapped."""
        self._memory.drop()
        self._listener.abandon()

    def close(self) -> None:
        """Release mappings and handles."""
        self._memory.keep(False)
        self._listener.abandon()
        self._mapper.close()
        self._control.close()


def named(name: str) -> Domain:
    """Open the domain that has that name, or id; raises as :meth:`XenDriver.open`."""
    libraries = load_all()
    with domains.store(libraries) as store:
        names = store.names()
    domid = domains.find(name, names)
    with about_a_machine():
        control = Control(libraries, domid, names[domid])
        if not control.info().hvm:
            told = f"{names[domid]} ({domid})"
            raise NotSupportedError(f"PV domains are not supported, and {told} is one: use HVM or PVH")
        return Domain(libraries, control)
