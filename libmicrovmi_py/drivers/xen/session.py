# SPDX-License-Identifier: Apache-2.0
"""A listener's session with Xen: the monitor of a domain, its ring, its event channel; and dead listeners."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator

from libmicrovmi_py.declare import Any
from libmicrovmi_py.drivers.xen import vmevent
from libmicrovmi_py.drivers.xen.channels import left_behind
from libmicrovmi_py.drivers.xen.library import Libraries
from libmicrovmi_py.drivers.xen.ring import BackRing
from libmicrovmi_py.drivers.xen.xenctrl import Domain, unopened
from libmicrovmi_py.errors import DriverUnavailableError, MicrovmiError, NotSupportedError
from libmicrovmi_py.model import PAGE_SIZE

_REFUSED = (errno.EOPNOTSUPP, errno.ENODEV, errno.EINVAL, errno.EXDEV)


class Session:
    """The one listener that Xen allows a domain. Not for several threads at once, but for :meth:`wait`."""

    def __init__(self, libraries: Libraries, domain: Domain) -> None:
        """Enable the monitor, then the ring, then the channel: an event before that would be lost.

        A listener that died is put aside.
        Raises ``DriverUnavailableError`` if a live one is there, ``NotSupportedError`` where Xen has no events.
        """
        self._domain = domain
        self._memory = libraries.memory.lib
        self._ffi, self._lib = libraries.channels
        self.channel: Any = None
        self._version = domain.lib.xc_vm_event_get_version(domain.handle)
        size = vmevent.entry_size(self._version)
        self._page, port = self._enable()
        try:
            view = memoryview(domain.ffi.buffer(self._page, PAGE_SIZE))
            self.ring = BackRing(view, size)
            self.ring.initialise()
            self._bind(libraries, port)
        except BaseException:
            self.close()
            domain.lib.xc_monitor_disable(domain.handle, domain.domid)
            raise

    def _enable(self) -> tuple[Any, int]:
        page, port, code = self._try_enable()
        if code == errno.EBUSY and left_behind(self._domain):
            self.disable()
            page, port, code = self._try_enable()
        if code:
            raise self._refusal(code)
        return page, port

    def _try_enable(self) -> tuple[Any, int, int]:
        """The page of the ring, the domain's port, and an errno."""
        ffi = self._domain.ffi
        port = ffi.new("uint32_t *")
        page = self._domain.lib.xc_monitor_enable(self._domain.handle, self._domain.domid, port)
        return page, int(port[0]), ffi.errno if page == ffi.NULL else 0

    def _refusal(self, code: int) -> MicrovmiError:
        name = self._domain.name
        if code == errno.EBUSY:
            return DriverUnavailableError(f"another program listens to the events of {name}: Xen allows one; end it")
        if code in _REFUSED:
            reason = errno.errorcode[code]
            return NotSupportedError(f"Xen has no events for {name} ({reason}): they take a domain with HAP")
        return self._domain.failure("listening to events", code)

    def _bind(self, libraries: Libraries, port: int) -> None:
        handle = self._lib.xenevtchn_open(libraries.log, 0)
        if handle == self._ffi.NULL:
            raise unopened("Xen's event channels", self._ffi.errno)
        channel = self._ffi.gc(handle, self._lib.xenevtchn_close)
        os.set_blocking(self._lib.xenevtchn_fd(channel), False)
        local = self._lib.xenevtchn_bind_interdomain(channel, self._domain.domid, port)
        if local < 0:
            raise self._domain.failure("binding the event channel", self._ffi.errno)
        self.channel, self._port = channel, local

    # ------------------------------------------------------------------------------------------------------- events

    def wait(self, seconds: float) -> None:
        """Until Xen signals, at most ``seconds``; a session that is closed meanwhile keeps its channel until then."""
        channel = self.channel
        if channel is not None:
            poll = select.poll()
            poll.register(self._lib.xenevtchn_fd(channel), select.POLLIN)
            poll.poll(seconds * 1000)

    def requests(self) -> Iterator[vmevent.Request]:
        """What has come, one by one. Raises ``IoError`` for a broken ring."""
        port = self._lib.xenevtchn_pending(self.channel)
        if port >= 0:
            self._lib.xenevtchn_unmask(self.channel, port)
        while (raw := self.ring.take()) is not None:
            yield vmevent.Request(raw)

    def respond(self, response: bytes) -> None:
        """Answer, and tell Xen, which takes the answer before this returns."""
        self.ring.put(response)
        self._lib.xenevtchn_notify(self.channel, self._port)

    def free_stopped(self) -> None:
        """Let vCPUs go on that an earlier listener left stopped.

        Xen counts room in the ring by answers, so after answers to nothing the ring is of no use: end the session.
        """
        for vcpu in range(self._domain.info().vcpus):
            self.respond(vmevent.release(self._version, vcpu))

    # ------------------------------------------------------------------------------------------------------ the end

    def disable(self) -> bool:
        """End the monitor; ``False`` if vCPUs wait for room in the ring, who would wait for ever then."""
        code = self._domain.lib.xc_monitor_disable(self._domain.handle, self._domain.domid)
        if code < 0 and self._domain.ffi.errno == errno.EBUSY:
            return False
        if code < 0:
            raise self._domain.failure("ending the monitor", self._domain.ffi.errno)
        return True

    def close(self) -> None:
        """Let go of the channel and of the ring's page; once."""
        if self.channel is not None:
            self._lib.xenevtchn_unbind(self.channel, self._port)
            self.channel = None
        self._memory.xenforeignmemory_unmap(self._ffi.NULL, self._page, 1)


def free_stopped(libraries: Libraries, domain: Domain) -> None:
    """Let vCPUs go on that no listener is there for any more, in a session of its own; raises as :class:`Session`."""
    session = Session(libraries, domain)
    try:
        session.free_stopped()
        session.disable()
    finally:
        session.close()


def connect(libraries: Libraries, domain: Domain) -> Session:
    """Become the listener of a domain whose vCPUs all run; raises as :class:`Session`."""
    free_stopped(libraries, domain)
    return Session(libraries, domain)
