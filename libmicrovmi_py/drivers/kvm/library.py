# SPDX-License-Identifier: Apache-2.0
"""One connected machine of libkvmi: its calls, their errors, and its end."""

from __future__ import annotations

import errno
import functools
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from libmicrovmi_py.declare import Any
from libmicrovmi_py.drivers.kvm import abi
from libmicrovmi_py.errors import (
    DriverUnavailableError,
    IoError,
    MicrovmiError,
    NotSupportedError,
    PermissionDeniedError,
    TimeoutExpiredError,
    VmGoneError,
    was_closed,
)
from libmicrovmi_py.model import PAGE_SIZE
from libmicrovmi_py.transport.fds import StandardStreamsHeld
from libmicrovmi_py.transport.foreign import Foreign
from libmicrovmi_py.transport.foreign_reads import ForeignReads, Line, Order

_GONE = frozenset({errno.EPIPE, errno.ENOTCONN, errno.ECONNRESET, errno.EBADF})
_OUT_OF_STEP = frozenset({errno.ENOMSG, errno.ENODATA, errno.E2BIG})
"""Errors after which libkvmi does not know any more where in the stream a message begins."""

_LASTING = frozenset({errno.ETIMEDOUT, *_OUT_OF_STEP})
"""Errors after which C reads nothing any more: an answer that comes late would be taken for the next one's."""

_LINGER = 1.0
"""Seconds that closing waits for calls under way before it takes the connection from them."""

_LIBRARY_LIMIT = 15.0
"""Seconds that libkvmi itself waits for an answer."""


class Domain:
    """A machine that connected. Calls may come from several threads; libkvmi puts them in order.

    ``connection`` is the number of the connection's file descriptor.
    """

    def __init__(self, foreign: Foreign, handle: Any) -> None:
        self.ffi = foreign.ffi
        self._lib = foreign.lib
        self._handle = handle
        self.connection = int(foreign.lib.kvmi_connection_fd(handle))
        self._pid = os.getpid()
        self._line = Line()
        self._closed = False
        self._lost = ""

    @property
    def name(self) -> str:
        """The machine's name as QEMU told it, possibly empty."""
        text = self.ffi.new("char[]", abi.NAME_SIZE)
        with self._using():
            self._lib.kvmi_domain_name(self._handle, text, abi.NAME_SIZE)
        return bytes(self.ffi.string(text)).decode("utf-8", "replace")

    def has(self, function: str) -> bool:
        """Whether this version of the library has a function."""
        return hasattr(self._lib, function)

    def reads(self, end: int) -> ForeignReads:
        """How C reads memory below ``end`` by itself, one request a frame."""
        integer = functools.partial(self.ffi.cast, "uintptr_t")
        function = self.ffi.addressof(self._lib, "kvmi_read_physical")
        return ForeignReads(
            self._line,
            int(integer(function)),
            int(integer(self._handle)),
            Order.ADDRESS_BUFFER_SIZE,
            end=end,
            most=PAGE_SIZE,
            crosses=False,
            lasting=_LASTING,
        )

    def attempt(self, function: str, *arguments: Any) -> int:
        """Call a function of the library on this machine; 0, or the ``errno`` of its failure.

        Raises ``VmGoneError`` once the connection is lost, ``InvalidContextError`` once closed.
        """
        self._enter()
        try:
            failed = getattr(self._lib, function)(self._handle, *arguments)
            return (self.ffi.errno or errno.EIO) if failed else 0
        finally:
            self._leave()

    def call(self, function: str, *arguments: Any) -> None:
        """As :meth:`attempt`, raising what :meth:`failure` makes of an error."""
        error = self.attempt(function, *arguments)
        if error:
            raise self.failure(error, function)

    def control(self, function: str, *arguments: Any) -> None:
        """As :meth:`call`, for switches: one that is refused as invalid is one that this hypervisor does not have."""
        error = self.attempt(function, *arguments)
        if error == errno.EINVAL:
            raise NotSupportedError(f"the hypervisor refuses {function} as invalid")
        if error:
            raise self.failure(error, function)

    def failure(self, error: int, function: str) -> MicrovmiError:
        """The exception for an ``errno`` of a function, and what it means for the calls to come."""
        told = f"{function}: {os.strerror(error)}"
        if self._closed:
            return was_closed()
        if error in (errno.EOPNOTSUPP, errno.ENOSYS):
            return NotSupportedError(f"the hypervisor cannot do this ({told})")
        if error == errno.EBUSY:
            return DriverUnavailableError(f"somebody else uses this of the machine ({told})")
        if error == errno.EPERM:
            return PermissionDeniedError(f"QEMU's introspection options do not allow this ({told})")
        if error == errno.ETIMEDOUT:
            self.lost(f"no answer from the hypervisor within {_LIBRARY_LIMIT:g} s")
            return TimeoutExpiredError(f"{self._lost} ({function})")
        if error in _OUT_OF_STEP:
            return self.lost(f"the hypervisor sent what makes no sense ({told})")
        if error in _GONE or not self._is_connected():
            return VmGoneError(f"the machine ended, or QEMU closed the connection ({told})")
        return IoError(told)

    def lost(self, why: str) -> IoError:
        """The error of a stream that cannot be understood any more; every later call fails, also those of C."""
        self._lost = why
        self._line.break_()
        return IoError(why)

    def free(self, event: Any) -> None:
        """Release an event that the library handed out."""
        self._lib.free(event)

    def close(self) -> None:
        """Let no call begin, wait for those under way, then hang up; KVM then takes back all that was asked of it.

        Once a failure is told as that of a closed machine, no call begins any more.
        """
        self._line.shut()
        self._closed = True
        if not self._line.wait(_LINGER):
            self._hang_up()
        if self._line.wait(_LIBRARY_LIMIT):
            self._lib.kvmi_domain_close(self._handle, os.getpid() == self._pid)

    def _hang_up(self) -> None:
        with StandardStreamsHeld(), socket.socket(fileno=os.dup(self.connection)) as connection:
            connection.shutdown(socket.SHUT_RDWR)

    def _is_connected(self) -> bool:
        with self._using():
            return bool(self._lib.kvmi_domain_is_connected(self._handle))

    @contextmanager
    def _using(self) -> Iterator[None]:
        self._enter()
        try:
            yield
        finally:
            self._leave()

    def _enter(self) -> None:
        if not self._line.join():
            raise was_closed()
        broken = self._line.broken
        if broken:
            self._leave()
            if self._lost:
                raise VmGoneError(f"the connection to the machine is lost: {self._lost}")
            raise self.failure(broken, "kvmi_read_physical")  # of a call of C's

    def _leave(self) -> None:
        self._line.part()
