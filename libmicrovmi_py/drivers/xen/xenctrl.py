# SPDX-License-Identifier: Apache-2.0
"""One domain through libxenctrl: its state, pausing, the saved state of vCPUs, and what errors mean."""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from libmicrovmi_py.declare import Any, NamedTuple
from libmicrovmi_py.drivers.xen.library import Libraries
from libmicrovmi_py.errors import (
    DriverUnavailableError,
    IoError,
    MicrovmiError,
    NotSupportedError,
    PermissionDeniedError,
    VmGoneError,
    was_closed,
)

_INFO = struct.Struct("<HHIQ48xII")
"""The beginning of what Xen tells of a domain: id, padding, flags, pages, ..., online vCPUs, highest vCPU."""

_INFO_SIZE = 1024
"""Bytes that are certainly enough for what follows, in any version."""

_DYING, _HVM, _PAUSED = 1 << 0, 1 << 1, 1 << 3

_MOST_PAUSES = 1 << 10
"""So many pauses of others are taken back at most."""

_REFUSED = (errno.EOPNOTSUPP, errno.ENOSYS)


class Info(NamedTuple):
    """A domain's state: whether it is HVM or PVH, whether it is paused, its pages, its vCPUs."""

    hvm: bool
    paused: bool
    pages: int
    vcpus: int


class Domain:
    """What is done to a domain as a whole. ``gone`` is called when the domain turns out to have ended."""

    def __init__(self, libraries: Libraries, domid: int, name: str) -> None:
        """Raises ``DriverUnavailableError`` or ``PermissionDeniedError`` if Xen cannot be spoken to."""
        self.domid = domid
        self.name = name
        self.ffi, self.lib = libraries.control
        handle = self.lib.xc_interface_open(libraries.log, libraries.log, 0)
        if handle == self.ffi.NULL:
            raise unopened("Xen", self.ffi.errno)
        self._handle: Any = self.ffi.gc(handle, self.lib.xc_interface_close)
        self.gone: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._ours = False

    @property
    def handle(self) -> Any:
        """libxenctrl's; it lives as long as somebody holds it. Raises ``InvalidContextError`` after :meth:`close`."""
        handle = self._handle
        if handle is None:
            raise was_closed()
        return handle

    def close(self) -> None:
        """Let go of the handle; calls that are under way keep it until they end."""
        self._handle = None
        self.gone = lambda: None

    # ------------------------------------------------------------------------------------------------------- errors

    def call(self, action: str, function: str, *arguments: Any) -> int:
        """Call a function of libxenctrl for this domain. Raises the error that :meth:`failure` makes of its errno."""
        result: int = getattr(self.lib, function)(self.handle, self.domid, *arguments)
        if result < 0:
            raise self.failure(action, self.ffi.errno)
        return result

    def failure(self, action: str, code: int) -> MicrovmiError:
        """The error for an errno: a domain that ended gives all kinds of them, so that is looked at first."""
        text = f"{action}: Xen says {errno.errorcode.get(code, code)} ({os.strerror(code)})"
        if self._look() is None:
            return self.ended()
        if code in (errno.EPERM, errno.EACCES):
            return PermissionDeniedError(f"{text}; run this as root in dom0, with the libxenctrl of the running Xen")
        return NotSupportedError(text) if code in _REFUSED else IoError(text)

    def ended(self) -> VmGoneError:
        """The error for a domain that ended; lets go of what keeps Xen from clearing it away."""
        self.gone()
        return VmGoneError(f"Xen domain {self.name} ({self.domid}) ended")

    # -------------------------------------------------------------------------------------------------------- state

    def info(self) -> Info:
        """The domain's state now. Raises ``VmGoneError``."""
        info = self._look()
        if info is None:
            raise self.ended()
        return info

    def _look(self) -> Info | None:
        """``None`` for a domain that ended, or is about to."""
        data = self.ffi.new("uint8_t[]", _INFO_SIZE)
        count = self.lib.xc_domain_getinfolist(self.handle, self.domid, 1, data)
        if count < 0 and self.ffi.errno in (errno.EPERM, errno.EACCES):
            raise unopened("Xen", self.ffi.errno)
        domid, _, flags, pages, _, highest = _INFO.unpack_from(self.ffi.buffer(data))
        if count < 1 or domid != self.domid or flags & _DYING:
            return None
        return Info(bool(flags & _HVM), bool(flags & _PAUSED), pages, highest + 1)

    def domains(self) -> Iterator[int]:
        """The ids of all domains, dom0 included."""
        data = self.ffi.new("uint8_t[]", _INFO_SIZE)
        domid = 0
        while self.lib.xc_domain_getinfolist(self.handle, domid, 1, data) == 1:
            found: int = _INFO.unpack_from(self.ffi.buffer(data))[0]
            yield found
            domid = found + 1

    def maximum_frame(self) -> int:
        """The highest frame that Xen has a page for, or had."""
        frame = self.ffi.new("unsigned long *")
        self.call("asking for the highest frame", "xc_domain_maximum_gpfn", frame)
        return int(frame[0])

    # -------------------------------------------------------------------------------------------------------- pause

    def pause(self) -> None:
        """Pause the domain, unless a pause of ours is there already: Xen counts them."""
        with self._lock:
            if self._ours and self.info().paused:
                return
            self.call("pausing", "xc_domain_pause")
            self._ours = True

    def paused(self) -> bool:
        """Whether it is paused; if not, somebody took our pause back, if there was one."""
        with self._lock:
            paused = self.info().paused
            self._ours = self._ours and paused
            return paused

    def take_back(self) -> None:
        """Take the pause of :meth:`pause` back, if it is there; those of others stay."""
        with self._lock:
            if self._ours and self.info().paused:
                self._unpause()
            self._ours = False

    def resume(self) -> None:
        """Take pauses back, whoever made them, until the domain runs."""
        with self._lock:
            self._ours = False
            for _ in range(_MOST_PAUSES):
                if not self.info().paused:
                    return
                self._unpause()
        raise IoError(f"resuming: still paused after {_MOST_PAUSES} tries; somebody else keeps pausing it")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the domain from running meanwhile; pauses of others, ours included, stay."""
        self.call("pausing", "xc_domain_pause")
        try:
            yield
        finally:
            self._unpause()

    def _unpause(self) -> None:
        """Take one pause back; Xen's EINVAL says that somebody else was quicker, or that the domain ended."""
        if self.lib.xc_domain_unpause(self.handle, self.domid) < 0 and self.ffi.errno not in (
            errno.EINVAL,
            errno.ESRCH,
        ):
            raise self.failure("resuming", self.ffi.errno)

    # ----------------------------------------------------------------------------------------------- state of vCPUs

    def context(self) -> bytes:
        """All records, for :meth:`load`."""
        size = self.call("reading the state", "xc_domain_hvm_getcontext", self.ffi.NULL, 0)
        data = self.ffi.new("uint8_t[]", size)
        size = self.call("reading the state", "xc_domain_hvm_getcontext", data, size)
        return bytes(self.ffi.buffer(data, size))

    def load(self, records: bytes) -> None:
        """Make records the state of the vCPUs that they are about; the domain has to be paused."""
        self.call("writing registers", "xc_domain_hvm_setcontext", self.ffi.new("uint8_t[]", records), len(records))


def unopened(what: str, code: int) -> MicrovmiError:
    """The error for something that could not be opened at all."""
    if code in (errno.EPERM, errno.EACCES):
        return PermissionDeniedError(
            f"{what} refused: run this as root in dom0, with the libxenctrl of the running Xen"
        )
    return DriverUnavailableError(f"{what} does not answer ({errno.errorcode.get(code, code)}): is this dom0?")
