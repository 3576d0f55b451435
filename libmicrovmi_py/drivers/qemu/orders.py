# SPDX-License-Identifier: Apache-2.0
"""What QEMU is told for a snapshot in the background, and the books of it: all of it is undone, whatever happens.

A mark that we leave in QEMU says that the capability is on because of us, in case that this process ends before it is
off again: a character device of nothing, of a name that nobody else gives, which every monitor of the machine shows.
Whether its process has ended shows the stream, which QEMU has from before the mark on: who lives holds a lock on it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from libmicrovmi_py.declare import TYPE_CHECKING, Any
from libmicrovmi_py.drivers.qemu import stops
from libmicrovmi_py.drivers.qemu.migration import FILE
from libmicrovmi_py.errors import DriverUnavailableError, IoError, TimeoutExpiredError, listed, logger
from libmicrovmi_py.model import U64_MAX
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.fds import OwnedFd
from libmicrovmi_py.transport.messages import QmpProtocolError
from libmicrovmi_py.transport.processes import Process, names_in
from libmicrovmi_py.transport.qmp import QmpClient, QmpCommandError, QmpHangupError, Question
from libmicrovmi_py.transport.shape import integer, record, records, shown
from libmicrovmi_py.transport.unixsock import UnixEndpoint
from libmicrovmi_py.transport.watcher import Job, Watcher

if TYPE_CHECKING:
    from libmicrovmi_py.drivers.qemu.migration import Stream

_log = logger(__name__)

_CAPABILITY = "background-snapshot"
_HARMLESS = (_CAPABILITY, "events")
"""Capabilities with which the stream is as it is without them."""

_MARK = "microvmi-background-snapshot"
"""Of the character device."""
_STREAM = "microvmi-stream"
"""Of the descriptor, which QEMU before 9 keeps by its name until the migration begins."""

_OPAQUE = "microvmi"
"""What a set of descriptors is known by."""

_FILES_SINCE = 9
"""The version of QEMU from which on a file is named otherwise: 11 does not take one by the old name."""

_ENDING = 60.0
"""Seconds in which QEMU, which is to end what is not wanted any more, writes nothing, after which it is not waited
for. It ends by itself, in any case."""

_LOOK = 0.02


class RefusedError(IoError):
    """It cannot be done, or not now; nothing was ordered."""


class Orders:
    """Those of one snapshot. What is ordered is in the books before it is sent."""

    def __init__(self, process: Process, client: Callable[[], AbstractContextManager[QmpClient]]) -> None:
        """``client`` connects to the monitor."""
        self._process = process
        self._client = client
        self._stream: Stream | None = None
        self._foreign = False  # the capability is on, and not by us
        self._named = False  # it may have the stream by its name
        self._set: int | None = None  # the set of descriptors that it may have
        self._by_file = False
        self._able = False  # the capability may be on by us, and marked
        self._ordered = False
        self._watcher = Watcher(Job.SNAPSHOT)
        self.begun = False
        """Whether QEMU has let the machine run again that it stopped."""

    def look(self, client: QmpClient) -> None:
        """Raise ``RefusedError`` if it cannot be done now."""
        names = (
            "query-version",
            "query-status",
            "query-migrate",
            "query-migrate-capabilities",
            "query-migrate-parameters",
            "query-chardev",
        )
        version, status, migrating, capabilities, parameters, devices = map(client.ask, names)
        if (word := stops.word(status)) != "running":
            raise RefusedError(f"the machine does not run ({word})")
        told = migrating.record()
        if stops.migrates(state := stops.migration_in(told)):
            raise RefusedError(f"a migration is under way ({state})")
        if blocked := told.get("blocked-reasons"):
            raise RefusedError(f"migrations are blocked ({shown(blocked)})")
        given = parameters.record()
        if given.get("tls-creds") or given.get("mode", "normal") != "normal":
            raise RefusedError("migrations are encrypted, or of another mode, by the parameters that were set")
        number = record(version.record().get("qemu"), "QEMU's version").get("major")
        self._by_file = integer(number, "QEMU's version", 0, 1 << 16) >= _FILES_SINCE
        self._check_capabilities(client, stops.capabilities(capabilities), _is_marked(devices))

    def _check_capabilities(self, client: QmpClient, told: dict[str, bool], marked: bool) -> None:
        if _CAPABILITY not in told:
            raise RefusedError("this QEMU has none: it needs 6.0 or newer")
        if others := [name for name, on in told.items() if on and name not in _HARMLESS]:
            raise RefusedError(f"other capabilities of migrations are on ({listed(others)})")
        if (told[_CAPABILITY] or marked) and is_busy(self._process):
            raise RefusedError("QEMU has not ended the last one yet, or somebody is about to take one")
        if marked:
            _take_over(client)
        self._foreign = told[_CAPABILITY] and not marked

    def begin(self, client: QmpClient, stream: Stream) -> None:
        """Have the machine migrated into the stream.

        Raises ``QmpCommandError`` where QEMU refuses, ``RefusedError`` for a monitor by TCP, and without a watcher.
        """
        self._watch(client)
        self._stream = stream
        if self._by_file:
            self._set = 1 << 30 | int.from_bytes(os.urandom(4), "big") >> 2
            _give(client, stream.entrance, "add-fd", fdset_id=self._set, opaque=_OPAQUE)
        else:
            self._named = True
            _give(client, stream.entrance, "getfd", fdname=_STREAM)
        if not self._foreign:
            self._able = True
            client.execute("chardev-add", id=_MARK, backend={"type": "null", "data": {}})
            _set_capability(client, True)
        if self._by_file:
            self._migrate(client, f"file:/dev/fdset/{self._set}")
            self._remove_set(client)  # QEMU has opened the file
        else:
            self._migrate(client, f"fd:{_STREAM}")

    def _watch(self, client: QmpClient) -> None:
        """Have somebody who undoes it if we are killed; libvirt's connection cannot be handed on."""
        if self._foreign or not isinstance(client.place, UnixEndpoint):
            return
        try:
            self._watcher.start(client.place, self._process)
        except IoError as err:
            raise RefusedError(str(err)) from err

    def _migrate(self, client: QmpClient, place: str) -> None:
        self._ordered = True
        try:
            client.execute("migrate", uri=place)
        except QmpCommandError:
            self._ordered = False
            raise

    def migrates(self) -> bool:
        """Whether it is still under way."""
        with self._client() as client:
            return stops.migrates(stops.migration(client.ask("query-migrate")))

    def settle(self) -> dict[str, Any]:
        """Undo all of it; what QEMU tells of the migration, which is over then.

        Raises ``TimeoutExpiredError`` if it is not; may be called again.
        """
        if not (self._ordered or self._able or self._named or self._set is not None):
            self._watcher.end()
            return {}
        told = self._end() if self._ordered else {}
        with self._client() as client:
            if self._able:
                _undo(client)
                self._able = False
            self._take_back(client)
            if told.get("status") == "failed" and not self.begun:
                _let_run(client)
            self._ordered = False
        self._watcher.end()
        return told

    def forget(self) -> None:
        """QEMU has ended: there is nothing to undo."""
        self._watcher.end()

    def _take_back(self, client: QmpClient) -> None:
        """The descriptors that QEMU has not closed."""
        if self._named:
            _close(client)
            self._named = False
        self._remove_set(client)

    def _remove_set(self, client: QmpClient) -> None:
        if self._set is not None:
            with contextlib.suppress(QmpCommandError):
                client.execute("remove-fd", fdset_id=self._set)
            self._set = None

    def _end(self) -> dict[str, Any]:
        """Wait until the migration is over and nothing of it is left; what still comes of it is thrown away.

        It is not cancelled: QEMU 7.2 leaves RAM write-protected if it is, and the guest would wait for ever at its next
        write, as it would if the capability were off before QEMU has cleaned up.
        """
        deadline, before = Deadline(_ENDING), -1
        while (under_way := self.migrates()) or is_busy(self._process):
            if self._stream is not None and (size := self._stream.discard()) not in (0, before):
                deadline, before = Deadline(_ENDING), size
            if deadline.expired:
                raise TimeoutExpiredError(f"QEMU still {'copies' if under_way else 'cleans up after a copy'}")
            time.sleep(_LOOK)
        with self._client() as client:
            return client.record("query-migrate")


def heal(client: QmpClient, process: Process) -> None:
    """Turn the capability off, which is on, if we turned it on, and did not live to turn it off."""
    if _is_marked(client.ask("query-chardev")) and not is_busy(process):
        _take_over(client)


def _take_over(client: QmpClient) -> None:
    """Undo what a process left that has ended, as far as this monitor can."""
    _undo(client)
    _close(client)
    _remove_sets(client)
    _log.warning("QEMU was still set up for a snapshot whose process had ended")


def _undo(client: QmpClient) -> None:
    """The capability first: without the mark it would be taken for somebody else's."""
    _set_capability(client, False)
    with contextlib.suppress(QmpCommandError):  # it was not there yet
        client.execute("chardev-remove", id=_MARK)


def _is_marked(devices: Question) -> bool:
    return any(item.get("label") == _MARK for item in devices.records())


def is_busy(process: Process) -> bool:
    """Whether a QEMU has write-protected its RAM, or a stream of a process that lives, or that cannot be told.

    One to which QEMU writes after its process has ended has RAM protected as well, until it is whole.
    """
    try:
        return any(_is_ours(process, number) for number in names_in(process.path("fd")))
    except OSError:
        return process.alive


def _is_ours(process: Process, number: str) -> bool:
    link = process.link(f"fd/{number}")
    if not link.startswith(f"/memfd:{FILE} "):
        return link == "anon_inode:[userfaultfd]"
    file = OwnedFd.open(process.path(f"fd/{number}"), os.O_RDONLY)
    try:
        fcntl.flock(file.number, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _give(client: QmpClient, given: OwnedFd, command: str, **arguments: object) -> None:
    try:
        client.hand_over(given.number, command, **arguments).result()
    except (QmpHangupError, QmpProtocolError):
        raise
    except DriverUnavailableError as err:
        raise RefusedError(str(err)) from err


def _set_capability(client: QmpClient, on: bool) -> None:
    client.execute("migrate-set-capabilities", capabilities=[{"capability": _CAPABILITY, "state": on}])


def _close(client: QmpClient) -> None:
    """QEMU has it no more if the migration began."""
    with contextlib.suppress(QmpCommandError):
        client.execute("closefd", fdname=_STREAM)


def _remove_sets(client: QmpClient) -> None:
    """Those of a stream that QEMU did not come to open."""
    for item in client.ask("query-fdsets").records():
        number = integer(item.get("fdset-id"), "a set's number", 0, U64_MAX)
        if any(given.get("opaque") == _OPAQUE for given in records(item.get("fds"), "a set")):
            with contextlib.suppress(QmpCommandError):
                client.execute("remove-fd", fdset_id=number)


def _let_run(client: QmpClient) -> None:
    """QEMU leaves a machine stopped that it stopped for a migration which failed before it let it run."""
    if stops.word(client.ask("query-status")) == "paused":
        client.execute("cont")
        _log.warning("QEMU had left the machine stopped: it runs again")
