# SPDX-License-Identifier: Apache-2.0
"""libvirt's library: one domain of a libvirtd that is named by its socket, and a time limit on every call.

The library starts a libvirtd for a user who has none, waits without a limit and prints its errors. Here it does none of
that: the socket is tried before, and held while the library connects; a thread in C makes the calls, see ``libvirt.h``.
"""

from __future__ import annotations

import errno
import functools
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from libmicrovmi_py.declare import Any, NamedTuple
from libmicrovmi_py.errors import DriverUnavailableError, IoError, PermissionDeniedError, TimeoutExpiredError
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.fds import StandardStreamsHeld
from libmicrovmi_py.transport.foreign import Foreign, load
from libmicrovmi_py.transport.messages import LARGEST_MESSAGE
from libmicrovmi_py.transport.native import native
from libmicrovmi_py.transport.peers import Credentials, credentials
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.unixsock import LONGEST_NAME, UnixEndpoint

LIBVIRT = """
void *virConnectOpen(const char *uri);
int virConnectClose(void *connection);
void *virDomainLookupByUUIDString(void *connection, const char *uuid);
int virDomainFree(void *domain);
int virDomainSuspend(void *domain);
int virDomainResume(void *domain);
int virDomainGetState(void *domain, int *state, int *reason, unsigned flags);
int virGetLastErrorCode(void);
int virGetLastErrorDomain(void);
const char *virGetLastErrorMessage(void);
void virSetErrorFunc(void *data, void *handler);
void virConnSetErrorFunc(void *connection, void *data, void *handler);
void virDefaultErrorFunc(void *error);
"""

QEMU = """
int virDomainQemuMonitorCommand(void *domain, const char *command, char **answer, unsigned flags);
int virDomainQemuMonitorCommandWithFiles(void *domain, const char *command, unsigned given, int *given_fds,
                                         unsigned *returned, int **returned_fds, char **answer, unsigned flags);
"""

_LIBRARIES = ("libvirt.so.0",), ("libvirt-qemu.so.0",)
_MOST_LEFT = 8
"""Calls of a libvirtd that nobody waits for any more, after which it is not asked: each has a thread and a connection.

They are counted apart for each libvirtd: that of a user who is not us may hang as long as he likes.
"""

_HANGING_UP = 1.0
"""Seconds that the end of a connection may take before it is left to itself."""

_RPC = 7
"""The part of the library that talks to libvirtd, in its errors: the connection is of no use any more."""

_LONGEST_ERROR = 4096
"""Bytes of an error's text that are told."""

_NO_DOMAIN = 42
_REFUSED = (45, 79, 80, 88)
"""The numbers of errors about rights: AUTH_FAILED, AUTH_CANCELLED, AUTH_UNAVAILABLE, ACCESS_DENIED."""

_UNQUOTED = b"/-_.0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

_listeners: dict[tuple[int, int, int], Credentials] = {}
"""Of sockets that were tried who listens there."""


class NoDomainError(DriverUnavailableError):
    """That libvirtd has no such domain."""


class RefusedError(IoError):
    """libvirtd did not do what it was asked for."""


class DomainState(NamedTuple):
    """What libvirt thinks that a domain does, by the numbers of ``virDomainState``, and why."""

    state: int
    reason: int


@functools.cache
def functions() -> Any:
    """The addresses of what C calls, as a ``struct mvi_libvirt_functions``.

    Raises ``DriverUnavailableError`` that names the library that is not there.
    """
    there = _is_loaded(_LIBRARIES[0][0])
    libvirt, qemu = load(_LIBRARIES[0], LIBVIRT), load(_LIBRARIES[1], QEMU)
    names = {
        **{"connect": "virConnectOpen", "disconnect": "virConnectClose", "look_up": "virDomainLookupByUUIDString"},
        **{"forget": "virDomainFree", "suspend": "virDomainSuspend", "resume": "virDomainResume"},
        **{"state": "virDomainGetState", "error_number": "virGetLastErrorCode"},
        **{"error_domain": "virGetLastErrorDomain", "error_text": "virGetLastErrorMessage"},
        "set_handler": "virConnSetErrorFunc",
    }
    found = {field: _address(libvirt, name) for field, name in names.items()}
    found["command"] = _address(qemu, "virDomainQemuMonitorCommand")
    found["hand_over"] = _address(qemu, "virDomainQemuMonitorCommandWithFiles")
    if not there:  # whoever had it before may have a handler of its own
        handlers = (_address(libvirt, name) for name in ("virSetErrorFunc", "virDefaultErrorFunc"))
        native().lib.mvi_libvirt_hush(*handlers)
    return native().ffi.new("struct mvi_libvirt_functions *", found)


def _is_loaded(name: str) -> bool:
    """Whether this process has a library of that name, or of a version of it."""
    own = Process.find(os.getpid())
    return own is not None and any(os.path.basename(vma.path).startswith(name) for vma in own.mappings())


def _address(library: Foreign, name: str) -> int:
    """0 for a function that this version of the library does not have."""
    try:
        return int(library.ffi.cast("uintptr_t", getattr(library.lib, name)))
    except AttributeError:
        return 0


class Domain:
    """A connection to the libvirtd at ``place``, and one domain of it, for calls one after the other."""

    def __init__(self, place: UnixEndpoint, uuid: str, deadline: Deadline, trusted: frozenset[int]) -> None:
        """``trusted`` are the ids of users whose libvirtd it may be, besides root's and our own.

        Raises ``NoDomainError``, ``PermissionDeniedError``, ``DriverUnavailableError``, ``TimeoutExpiredError``.
        """
        self._place = place
        self._libvirtd = 0  # the process id, as far as it is known
        self._late = False
        self._lib = native().lib
        known = functions()
        if len(os.fsencode(place.path)) > LONGEST_NAME:
            raise DriverUnavailableError(f"{place}: a path that is too long for a socket's name")
        with self._tried(deadline) as listener:
            self._libvirtd = listener.pid
            if listener.uid not in {0, os.geteuid(), *trusted}:
                raise DriverUnavailableError(f"{place}: user {listener.uid} listens there, who is not to be trusted")
            uri = f"qemu+unix:///{'session' if listener.uid else 'system'}?socket={_quoted(place.path)}"
            self._made = self._new(known, uri, uuid)
            try:
                self._do(self._lib.MVI_LIBVIRT_OPEN, deadline)
            except RefusedError as err:
                self.close()
                raise DriverUnavailableError(f"{place}: {err}") from err
            except BaseException:
                self.close()
                raise

    @contextmanager
    def _tried(self, deadline: Deadline) -> Iterator[Credentials]:
        """Who listens. As long as the library might start a libvirtd, a connection of ours shows that there is one.

        Each is a line in libvirtd's log, so where the library does not start one, a socket is tried once.
        """
        identity = _identity(self._place.path)
        listener = _listeners.get(identity) if identity else None
        if listener and 0 in (listener.uid, os.geteuid()):
            yield listener
            return
        with self._connected(deadline) as probe:
            listener = credentials(probe)
            if identity:
                _listeners[identity] = listener
            yield listener

    def _connected(self, deadline: Deadline) -> socket.socket:
        try:
            return self._place.connect(deadline)
        except DriverUnavailableError as err:
            if isinstance(err.__cause__, PermissionError):
                raise PermissionDeniedError(f"{err} (as root, or in the group libvirt)") from err
            raise

    def _new(self, known: Any, uri: str, uuid: str) -> Any:
        left = self._lib.mvi_libvirt_left(os.fsencode(uri))
        if left >= _MOST_LEFT:
            raise TimeoutExpiredError(f"{left} calls of libvirt are under way that did not end in time: {self._hint()}")
        made = self._lib.mvi_libvirt_new(known, os.fsencode(uri), uuid.encode())
        if not made:
            raise IoError("no memory, or no thread, for calls of libvirt")
        return made

    @property
    def takes_descriptors(self) -> bool:
        """Whether this version of the library can hand descriptors over."""
        return bool(functions().hand_over)

    def command(self, text: str, descriptor: int | None, deadline: Deadline) -> bytes:
        """Have the monitor told that, with a descriptor, and return its answer, as far as a message may be long.

        Raises as all calls do: ``RefusedError`` from libvirtd; ``DriverUnavailableError`` when it is gone,
        ``TimeoutExpiredError``. After these two nothing can be asked any more.
        """
        self._do(self._lib.MVI_LIBVIRT_COMMAND, deadline, text, -1 if descriptor is None else descriptor)
        return self._text(LARGEST_MESSAGE)

    def suspend(self, deadline: Deadline) -> None:
        """``virDomainSuspend``."""
        self._do(self._lib.MVI_LIBVIRT_SUSPEND, deadline)

    def resume(self, deadline: Deadline) -> None:
        """``virDomainResume``."""
        self._do(self._lib.MVI_LIBVIRT_RESUME, deadline)

    def state(self, deadline: Deadline) -> DomainState:
        """``virDomainGetState``."""
        self._do(self._lib.MVI_LIBVIRT_STATE, deadline)
        number = self._lib.mvi_libvirt_number(self._made)
        return DomainState(number & 0xFFFFFFFF, number >> 32)

    def close(self) -> None:
        """Hang up. A call that is under way still is left to itself."""
        made, self._made = self._made, None
        if made is not None:
            self._lib.mvi_libvirt_free(made, 0 if self._late else _nanoseconds(_HANGING_UP))

    def _do(self, order: int, deadline: Deadline, text: str = "", descriptor: int = -1) -> None:
        with StandardStreamsHeld():  # the library opens descriptors when it connects
            code = self._lib.mvi_libvirt_do(
                self._made, order, text.encode("utf-8", "surrogatepass"), descriptor, _nanoseconds(deadline.remaining)
            )
        if code == errno.ETIMEDOUT:
            self._late = True
            raise TimeoutExpiredError(f"no answer from libvirtd within {deadline.seconds:.2g} s: {self._hint()}")
        if code == errno.EREMOTEIO:
            raise self._error()
        if code:
            raise IoError(f"cannot call libvirt: {os.strerror(code)}")

    def _error(self) -> DriverUnavailableError | PermissionDeniedError | RefusedError:
        """What libvirt told, by the kind of its error."""
        told = self._lib.mvi_libvirt_number(self._made)
        number, part = told & 0xFFFFFFFF, told >> 32
        text = self._text(_LONGEST_ERROR).decode(errors="replace")
        if number == _NO_DOMAIN:
            return NoDomainError(f"{self._place}: {text}")
        if number in _REFUSED:
            return PermissionDeniedError(f"{self._place}: libvirt refuses: {text} (as root, or in the group libvirt)")
        if part == _RPC:
            return DriverUnavailableError(f"{self._place}: the connection to libvirtd broke: {text}")
        return RefusedError(f"libvirt: {text}")

    def _text(self, longest: int) -> bytes:
        """What C has of the last call: ``longest`` bytes at the most, and one more if it is longer."""
        return bytes(native().ffi.string(self._lib.mvi_libvirt_text(self._made), longest + 1))

    def _hint(self) -> str:
        """Why it does not answer, as far as that can be seen."""
        process = Process.find(self._libvirtd) if self._libvirtd else None
        if process and process.stopped:
            return f"process {process.pid} ({process.executable()}) is stopped by a signal (kill -CONT {process.pid})"
        return f"{self._place} takes connections, and does nothing"


def _identity(path: str) -> tuple[int, int, int] | None:
    """What tells a socket from a later one of that name; ``None`` if it is not there."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino, status.st_ctime_ns


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def _quoted(path: str) -> str:
    """A path for a URI, whatever bytes it has."""
    return "".join(chr(byte) if byte in _UNQUOTED else f"%{byte:02X}" for byte in os.fsencode(path))
