# SPDX-License-Identifier: Apache-2.0
"""A debugger's stub whose machine runs at times, by the C functions of ``stub.h``: its packets, and its stops."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Sequence

from libmicrovmi_py.declare import Any, NamedTuple
from libmicrovmi_py.errors import DriverUnavailableError, IoError, MicrovmiError, TimeoutExpiredError
from libmicrovmi_py.transport.fds import OwnedFd, StandardStreamsHeld
from libmicrovmi_py.transport.native import native
from libmicrovmi_py.transport.rsp import framed

_ROOM = 1 << 20
"""Bytes of the answers to one set of questions: the registers of 500 vCPUs."""

_MOST = 2048
"""Answers to one set of questions."""

_LATE, _WOKEN, _ENDED = -1, -2, -3


def sent(packet: str) -> bytes:
    """A packet that is answered whether the machine stands or not: one that runs is stopped by what it is sent first,
    and swallows it. What comes before that acknowledges the last answer."""
    return b"++" + framed(packet)


class Quiet(NamedTuple):
    """Stops that nobody has an interest in: at a watchpoint of one of ``places``, while no vCPU's number differs from
    the one that is known of it, in the bits of ``mask``.

    The number of vCPU N is the answer to question ``first`` + 2N: 16 digits.
    """

    places: Sequence[int]
    mask: int
    first: int = 1


class Plan:
    """What is asked at each stop, and which stops are passed over; made once for many of them.

    ``known``: the numbers by vCPU that a stop is compared with; the caller's to write while the machine stands.
    """

    def __init__(
        self, questions: Sequence[str] = (), again: str = "", quiet: Quiet | None = None, count: int = 0
    ) -> None:
        """``again`` lets the machine go on; ``count``: vCPUs whose number is looked at."""
        ffi, _ = native()
        asked, goes = b"".join(map(sent, questions)), sent(again) if quiet and again else b""
        places = quiet.places if quiet else ()
        self.known: Any = ffi.new("uint64_t[]", max(count, 1))
        self._kept = ffi.from_buffer(asked), ffi.from_buffer(goes), ffi.new("uint64_t[]", list(places) or 1)
        self.pointer: Any = ffi.new("struct mvi_stub_plan *")
        self.pointer.questions, self.pointer.again, self.pointer.places = self._kept
        self.pointer.question_size, self.pointer.again_size = len(asked), len(goes)
        self.pointer.answers, self.pointer.place_count = len(questions), len(places)
        self.pointer.known, self.pointer.known_count = self.known, count
        if quiet:
            self.pointer.mask, self.pointer.first = quiet.mask, quiet.first

    @property
    def passed(self) -> int:
        """Stops that were passed over."""
        return int(self.pointer.passed)


class StubPackets:
    """Owns the socket. Every call raises ``DriverUnavailableError`` if the stub hung up, ``IoError`` for what no stub
    sends, and ``TimeoutExpiredError`` if an answer does not come within ``timeout`` seconds.

    One thread at a time, but for :meth:`wake`.
    """

    def __init__(self, sock: socket.socket, timeout: float) -> None:
        ffi, self._lib = native()
        self._ffi = ffi
        self._socket = sock
        self.is_lost = False
        """Whether it was found out that the stub hung up."""
        self._timeout = timeout
        self._milliseconds = int(timeout * 1000)
        with StandardStreamsHeld():
            self._wake = OwnedFd(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        self._stub: Any = ffi.new("struct mvi_stub *", {"socket": sock.fileno(), "wake": self._wake.number})
        self._bytes: Any = ffi.new("uint8_t[]", _ROOM)
        self._ends: Any = ffi.new("uint32_t[]", _MOST)
        self._taken: Any = ffi.new(
            "struct mvi_stub_packets *", {"bytes": self._bytes, "ends": self._ends, "capacity": _ROOM, "most": _MOST}
        )

    def wake(self) -> None:
        """Have the thread that is in :meth:`stand`, or comes there next, come back. From any thread."""
        os.eventfd_write(self._wake.number, 1)

    def fileno(self) -> int:
        """What is readable when something has come."""
        return self._socket.fileno()

    def close(self) -> None:
        """Hang up; who waits comes back."""
        self._stub.socket = -1
        self._socket.close()
        self.wake()

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self._check(self._lib.mvi_stub_send(self._stub, data, len(data), self._milliseconds))

    def go(self, packet: str) -> None:
        """Send a packet with which a machine that stands goes on. The stub has it when this returns: what others order
        then comes behind it."""
        data = sent(packet)
        self._check(self._lib.mvi_stub_go(self._stub, data, len(data), self._milliseconds))

    def ask(self, packets: Sequence[str]) -> list[bytes]:
        """Send packets in one go to a machine that stands; their answers."""
        data = b"".join(map(sent, packets))
        self._taken.count = 0
        self._check(self._lib.mvi_stub_ask(self._stub, data, len(data), len(packets), self._milliseconds, self._taken))
        return self._packets()

    def answer(self) -> bytes:
        """The next answer to what was sent."""
        self._taken.count = 0
        self._check(self._lib.mvi_stub_take(self._stub, False, self._milliseconds, self._taken))
        return self._packets()[0]

    def wait(self, seconds: float) -> None:
        """Until something has come, or :meth:`wake` is called; another thread may use or close this meanwhile."""
        wake, waits = self._wake, select.poll()
        for number in (wake.number, self._socket.fileno()):
            if number >= 0:
                waits.register(number, select.POLLIN)
        if wake.number in dict(waits.poll(1000 * seconds)):
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(wake.number)

    def stop_told(self, seconds: float = 0.0) -> bytes | None:
        """The next packet of a stop, if one comes in that time."""
        self._taken.count = 0
        failed = self._lib.mvi_stub_take(self._stub, True, int(seconds * 1000), self._taken)
        if failed == _LATE:
            return None
        self._check(failed)
        return self._packets()[0]

    def stand(self, plan: Plan, seconds: float) -> list[bytes] | None:
        """Wait until the machine has stopped: the packet that tells so, and the answers to the plan's questions if it
        was stopped by what is placed. ``None``: it runs; nothing came in time, or :meth:`wake` was called."""
        self._taken.count = 0
        plan.pointer.patience = self._milliseconds
        failed = self._lib.mvi_stub_stand(self._stub, plan.pointer, int(seconds * 1000), self._taken)
        if failed == _WOKEN:
            os.eventfd_read(self._wake.number)
        if failed in (_LATE, _WOKEN) and not self._taken.count:
            return None
        self._check(failed)
        return self._packets()

    def _packets(self) -> list[bytes]:
        count = self._taken.count
        ends = self._ffi.unpack(self._ends, count)
        data = self._ffi.buffer(self._bytes, ends[-1])[:] if count else b""
        return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def _check(self, failed: int) -> None:
        if failed:
            raise self._error(failed)

    def _error(self, failed: int) -> MicrovmiError:
        if failed == _LATE:
            return TimeoutExpiredError(f"no answer from the debugger's stub within {self._timeout:g} s")
        if failed < _ENDED:
            return IoError("not a debugger's stub: it sent what is no packet, or too many")
        self.is_lost = True
        why = "it hung up" if failed == _ENDED else os.strerror(failed)
        return DriverUnavailableError(f"the debugger's stub of QEMU is somebody else's now, or QEMU ended: {why}")
