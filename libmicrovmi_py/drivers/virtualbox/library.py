# SPDX-License-Identifier: Apache-2.0
"""Calls into libFDP: one at a time, with a time limit."""

from __future__ import annotations

import functools
import os
import threading
import time

from libmicrovmi_py.declare import Any
from libmicrovmi_py.drivers.virtualbox.abi import DECLARATIONS, READ_LIMIT
from libmicrovmi_py.drivers.virtualbox.channel import Channel
from libmicrovmi_py.errors import DriverUnavailableError, IoError, TimeoutExpiredError
from libmicrovmi_py.model import PHYSICAL_BITS
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.foreign import Foreign, load
from libmicrovmi_py.transport.foreign_reads import ForeignReads, Line, Order

_LOOK = 0.1
"""Seconds after which the calls under way are looked at."""

_SHORTEST = 1.0
"""Seconds that an answer may take whoever is in a hurry: a call that is given up costs the link."""

_TRIES = 50
"""So many times a call is tried to be ended."""

_SIGNALS = "int sigfillset(void *); int pthread_sigmask(int, const void *, void *);"
_SIGSET_SIZE = 128
_SIG_SETMASK = 2

_links: dict[tuple[str, tuple[int, int]], Link] = {}
_links_lock = threading.Lock()


class Link:
    """A machine's channel, one in a process for all that have the machine open.

    It stays when the last of them is closed: libFDP does not give back what a handle mapped, so a handle for each
    opening would be 20 MiB of addresses for each. A call that is not answered waits for ever in libFDP, where nothing
    can reach it but an answer; so a thread looks at the call under way, and gives that answer when its time is over.
    The link is then broken: an answer that comes later would be taken for the next one's.
    """

    def __init__(self, foreign: Foreign, handle: Any, channel: Channel, name: str) -> None:
        self.ffi = foreign.ffi
        self._lib = foreign.lib
        self._handle = handle
        self._channel = channel
        self._name = name
        self._line = Line(channel.lock, single=True)
        self._joining = threading.Lock()
        self._users = 0
        self._left = threading.Event()

    @classmethod
    def open(cls, name: str, library: str, limit: float) -> Link:
        """The link of a machine; each has to be given back by :meth:`leave`.

        Raises ``DriverUnavailableError`` for a machine that is not there or does not answer within ``limit`` seconds,
        ``PermissionDeniedError``, ``InvalidArgumentError`` for a name that cannot be one.
        """
        channel = Channel(name)
        foreign = load((library,), DECLARATIONS)
        with _links_lock:
            key = (library, channel.key)
            if key in _links:
                channel.close()
            else:
                _links[key] = cls(foreign, _handle(foreign, name), channel, name)
            link = _links[key]
        link._join(limit)
        return link

    def _join(self, limit: float) -> None:
        with self._joining:
            if self._users == 0:
                self._prepare(limit)
                self._left = threading.Event()
                threading.Thread(target=self._watch, args=(self._left,), name="libmicrovmi-fdp", daemon=True).start()
            self._users += 1

    def _prepare(self, limit: float) -> None:
        try:
            quiet = self._channel.settle(limit)
        except DriverUnavailableError as err:
            raise DriverUnavailableError(f"the machine {self._name} does not answer: {err}; is it running?") from err
        if self._line.broken or not quiet:
            self._lib.FDP_Init(self._handle)
        self._line.mend()

    def leave(self) -> None:
        """Give the link back."""
        with self._joining:
            self._users -= 1
            if self._users == 0:
                self._left.set()

    def is_alone(self) -> bool:
        """Whether nobody has the machine open but who asks: no other process, and no other opening in this one."""
        with _links_lock:
            users = sum(link._users for (_, key), link in _links.items() if key == self._channel.key)
        return users == 1 and self._channel.is_only_ours()

    def call(self, limit: float, function: str, *arguments: Any) -> Any:
        """Call a function with the handle and ``arguments``.

        Raises ``TimeoutExpiredError`` if there was no answer within ``limit`` seconds, now or in an earlier call.
        """
        self._enter(limit)
        try:
            self._line.begin(time.monotonic() + max(Deadline(limit).seconds, min(limit, _SHORTEST)))
            result = getattr(self._lib, function)(self._handle, *arguments)
        finally:
            believed = self._line.end()
            self._line.unlock()
        if not believed:
            self._check()
        return result

    def reads(self, limit: float) -> ForeignReads:
        """How C reads by itself, whose calls are ended after ``limit`` seconds as those of :meth:`call` are."""
        integer = functools.partial(self.ffi.cast, "uintptr_t")
        function = self.ffi.addressof(self._lib, "FDP_ReadPhysicalMemory")
        return ForeignReads(
            self._line,
            int(integer(function)),
            int(integer(self._handle)),
            Order.BUFFER_SIZE_ADDRESS,
            end=1 << PHYSICAL_BITS,
            most=READ_LIMIT,
            crosses=True,
            limit=limit,
        )

    def _enter(self, limit: float) -> None:
        """Take the lock when no other process is in a request, or when those of others are seen to be answered.

        libFDP waits for them without a limit.
        """
        if self._line.lock(0):
            if not self._line.broken and not self._channel.held:
                return
            self._line.unlock()
        deadline, before = Deadline(limit), None
        while not self._entered(deadline, before):
            before = before or self._channel.flags()
            time.sleep(0.0002)

    def _entered(self, deadline: Deadline, before: tuple[int, ...] | None) -> bool:
        if not self._line.lock(deadline.remaining):
            raise TimeoutExpiredError(f"the machine {self._name} is busy with other requests of this program")
        moves = before is not None and self._channel.flags() != before
        if not self._line.broken and (moves or not self._channel.held):
            return True
        self._line.unlock()
        self._check()
        if deadline.expired:
            raise TimeoutExpiredError(f"the machine {self._name} is busy, or a program died in a request to it")
        return False

    def _check(self) -> None:
        if self._line.broken:
            raise TimeoutExpiredError(f"the machine {self._name} did not answer in time; open it again")

    def _watch(self, left: threading.Event) -> None:
        _leave_signals_to_the_host()
        while not left.wait(_LOOK) or (self._line.busy and self._left is left):  # else another thread watches by now
            if self._line.give_up():
                self._end_call()
            elif left.is_set():
                time.sleep(_LOOK)

    def _end_call(self) -> None:
        for _ in range(_TRIES):
            self._channel.answer()
            time.sleep(0.01)
            if not self._line.busy:
                self._channel.clear()
                return


def _handle(foreign: Foreign, name: str) -> Any:
    handle = foreign.lib.FDP_OpenSHM(os.fsencode(name))
    if not handle:
        raise IoError(f"libFDP cannot open the shared memory of the machine {name}")
    return handle


def _leave_signals_to_the_host() -> None:
    """Block all signals in this thread: a host that waits for them with its own threads would not get them."""
    libc = load(("libc.so.6",), _SIGNALS)
    every = libc.ffi.new("char[]", _SIGSET_SIZE)
    libc.lib.sigfillset(every)
    libc.lib.pthread_sigmask(_SIG_SETMASK, every, libc.ffi.NULL)
