# SPDX-License-Identifier: Apache-2.0
"""The shared memory of a machine, looked at beside libFDP, which checks nothing of it and waits for ever."""

from __future__ import annotations

import mmap
import os
import stat
import time

from libmicrovmi_py.drivers.virtualbox.abi import (
    ANSWER_LOCK,
    ANSWER_PRESENT,
    ANSWER_SIZE,
    ANSWER_STATUS,
    CHANNEL_SIZE,
    CPU_SIZE,
    LOCK,
    REQUEST_LOCK,
    REQUEST_PRESENT,
    STATE_LOCK,
)
from libmicrovmi_py.drivers.virtualbox.owner import check_owner, has_one_other
from libmicrovmi_py.errors import DriverUnavailableError, InvalidArgumentError, MicrovmiError, PermissionDeniedError
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.fds import OwnedFd, StandardStreamsHeld
from libmicrovmi_py.transport.processes import Process

FOLDER = "/dev/shm"
_LONGEST_NAME = 255 - len("CPU_")
_LOOK = 0.001
_LOOKS = 20


class Channel:
    """The object of a machine, mapped. ``key`` tells one object from another."""

    def __init__(self, name: str) -> None:
        """Raises ``DriverUnavailableError`` for a machine without one, ``PermissionDeniedError``.

        Nothing is written, and nothing that is no such object is opened.
        """
        fd = open_objects(name, named=True)
        self._status = os.fstat(fd.number)
        self.key = (self._status.st_dev, self._status.st_ino)
        with StandardStreamsHeld():
            self._bytes = mmap.mmap(fd.number, CHANNEL_SIZE)

    @property
    def lock(self) -> memoryview:
        """The byte that tells :attr:`held`."""
        return memoryview(self._bytes)[LOCK : LOCK + 1]

    @property
    def held(self) -> bool:
        """Whether some client is in a request."""
        return self._bytes[LOCK] != 0

    def is_only_ours(self) -> bool:
        """Whether no process but this one and the machine's own can have the machine open."""
        return has_one_other(self._status, Process.all())

    def settle(self, limit: float) -> bool:
        """Wait until no client is in a request, or those of others are seen to be answered.

        ``False`` if what is in the channel was left by a client that died. Raises ``DriverUnavailableError`` if a
        request waits there that nobody takes.
        """
        deadline, before = Deadline(limit), self.flags()
        while self.held:
            time.sleep(_LOOK)
            if self.flags() != before:
                return True
            if deadline.expired:
                if self._bytes[REQUEST_PRESENT]:
                    raise DriverUnavailableError("a request of another program waits there, and nobody takes it")
                return False
        return not self._left_over()

    def _left_over(self) -> bool:
        """Whether a request or an answer lies there that nobody waits for: each of several looks finds no lock."""
        for _ in range(_LOOKS):
            lock, *present = self.flags()
            if lock or not any(present):
                return False
            time.sleep(_LOOK)
        return True

    def flags(self) -> tuple[int, ...]:
        """What changes while requests are answered."""
        return tuple(self._bytes[at] for at in (LOCK, REQUEST_PRESENT, ANSWER_PRESENT))

    def answer(self) -> None:
        """Answer in the machine's place, with a failure of one byte, to end a request that nobody answers."""
        self._bytes[REQUEST_PRESENT] = 0
        self._bytes[ANSWER_SIZE : ANSWER_SIZE + 4] = (1).to_bytes(4, "little")
        self._bytes[ANSWER_STATUS] = 0
        self._bytes[ANSWER_PRESENT] = 1
        self._unlock()

    def clear(self) -> None:
        """Leave neither a request nor an answer nor a lock."""
        self._bytes[REQUEST_PRESENT] = 0
        self._bytes[ANSWER_PRESENT] = 0
        self._unlock()

    def _unlock(self) -> None:
        for at in (STATE_LOCK, REQUEST_LOCK, ANSWER_LOCK, LOCK):
            self._bytes[at] = 0

    def close(self) -> None:
        """Give the mapping back."""
        self._bytes.close()


def open_objects(name: str, *, named: bool) -> OwnedFd:
    """The channel of a machine, after a look at both of its objects; raises as ``Channel``.

    ``named`` is whether the user named the driver, else the name may be that of another hypervisor's machine.
    """
    check_name(name)
    fd = _check_object(name, CHANNEL_SIZE, named)
    _check_object(f"CPU_{name}", CPU_SIZE, named)
    return fd


def check_name(name: str) -> None:
    """Raise ``InvalidArgumentError`` for what cannot be a file right in the folder of shared memory objects."""
    if name in (".", "..") or "/" in name or "\0" in name or len(os.fsencode(name)) > _LONGEST_NAME:
        raise InvalidArgumentError(f"{name[:80]!r} cannot be the name of a VirtualBox machine with FDP")


def _check_object(name: str, size: int, named: bool) -> OwnedFd:
    path = f"{FOLDER}/{name}"
    try:
        found = OwnedFd.open(path, os.O_PATH | os.O_NOFOLLOW)
        status = os.fstat(found.number)
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            raise DriverUnavailableError(f"{path} is no shared memory of FDP: {status.st_size} bytes, not {size}")
        check_owner(path, status, named=named)
        return OwnedFd.open(f"/proc/self/fd/{found.number}", os.O_RDWR)
    except MicrovmiError:
        raise
    except PermissionError as err:
        raise PermissionDeniedError(f"{path}: {err.strerror}; run as the user who runs VirtualBox") from err
    except OSError as err:
        reason = f"no machine of that name with FDP: {path}: {err.strerror}"
        raise DriverUnavailableError(f"{reason}; start it with a VirtualBox that has FDP") from err
