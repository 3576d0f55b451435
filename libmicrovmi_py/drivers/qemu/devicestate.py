# SPDX-License-Identifier: Apache-2.0
"""The state of a machine's devices, vCPUs among them, as QEMU saves it for a snapshot."""

from __future__ import annotations

import os
from collections.abc import Mapping

from libmicrovmi_py.errors import IoError, listed
from libmicrovmi_py.transport.fds import OwnedFd, StandardStreamsHeld
from libmicrovmi_py.transport.qmp import QmpClient, Question
from libmicrovmi_py.transport.shape import integer, record

_LARGEST = 64 << 20
"""Bytes; machines have 20 KiB to a few MiB."""

_NO_STATE = "non-migratable device"
"""How QEMU begins to tell a device of which it has nothing to save."""

_TELLS_DEVICES, _HIGHEST_VERSION = 6, 1 << 16
"""The first version of QEMU that tells them."""


class StateFile:
    """Memory of ours that QEMU saves the state into, through a set of descriptors by a number that nobody can guess.

    While the machine stands the set stays with QEMU: QEMU before 10 closes no descriptor of a set that is taken back
    then, and would run out of them. QEMU forgets it as well when it runs and its last monitor hangs up.
    """

    def __init__(self) -> None:
        """Raises ``IoError`` without a descriptor left."""
        self._set = 1 << 30 | int.from_bytes(os.urandom(4), "big") >> 2
        try:
            with StandardStreamsHeld():
                self._memory = OwnedFd(os.memfd_create("microvmi"))
            self._entrance = OwnedFd.open(f"/proc/self/fd/{self._memory.number}", os.O_WRONLY)
        except OSError as err:
            raise IoError(f"no memory for the device state: {err.strerror}") from err
        self._kept = False
        self._version = 0  # QEMU's, once it was asked

    def save(self, client: QmpClient, migration: Mapping[str, object], *, stands: bool) -> bytes:
        """The state. A machine that runs is stopped for a moment, and runs again.

        ``migration`` is what ``query-migrate`` answered in this session. Raises ``QmpCommandError`` where QEMU refuses,
        ``DriverUnavailableError`` for a monitor by TCP, ``IoError`` for more than can be, or where it is not safe.
        """
        self._check_safe(client, migration)
        os.ftruncate(self._entrance.number, 0)
        os.lseek(self._entrance.number, 0, os.SEEK_SET)
        added = None if self._kept and self._is_there(client) else self._add(client)
        saved = client.ask("xen-save-devices-state", filename=f"/dev/fdset/{self._set}", live=False)
        removed = None if stands else client.ask("remove-fd", fdset_id=self._set)  # whatever becomes of the others
        self._kept = stands
        if added:
            added.result()
        saved.result()
        if removed:
            removed.result()
        return self._content()

    def _check_safe(self, client: QmpClient, migration: Mapping[str, object]) -> None:
        """Raise ``IoError`` if saving the state might end QEMU.

        A device that cannot be migrated may have no description of what there is to save. QEMU looks for none before it
        migrates, but saves the devices alone without a look, and reads at address 0 (an NVMe disk, QEMU 7.2 and 10).
        """
        if not self._version:
            numbers = record(client.record("query-version").get("qemu"), "the version of QEMU")
            self._version = integer(numbers.get("major"), "the version of QEMU", 1, _HIGHEST_VERSION)
        if self._version < _TELLS_DEVICES:
            raise IoError(f"QEMU before {_TELLS_DEVICES}.0 does not tell whether saving its devices would end it")
        reasons = migration.get("blocked-reasons")
        found = [one for one in reasons if isinstance(one, str)] if isinstance(reasons, list) else []
        if devices := [one for one in found if one.startswith(_NO_STATE)]:
            raise IoError(f"saving this machine's devices might end QEMU ({listed(devices, separator='; ')})")

    def forget(self, client: QmpClient) -> None:
        """Take the set back, if QEMU has it."""
        if self._kept and self._is_there(client):
            client.execute("remove-fd", fdset_id=self._set)
        self._kept = False

    @property
    def kept(self) -> bool:
        """Whether QEMU may have the set."""
        return self._kept

    def _add(self, client: QmpClient) -> Question:
        return client.hand_over(self._entrance.number, "add-fd", fdset_id=self._set, opaque="microvmi")

    def _is_there(self, client: QmpClient) -> bool:
        return any(item.get("fdset-id") == self._set for item in client.records("query-fdsets"))

    def _content(self) -> bytes:
        size = os.fstat(self._memory.number).st_size
        if size > _LARGEST:
            raise IoError(f"a device state of {size} bytes: more than {_LARGEST} cannot be")
        return os.pread(self._memory.number, size, 0)
