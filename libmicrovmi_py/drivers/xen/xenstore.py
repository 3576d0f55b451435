# SPDX-License-Identifier: Apache-2.0
"""Domains by name or id: xenstore knows the names."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from libmicrovmi_py.declare import Any
from libmicrovmi_py.drivers.xen.library import Libraries
from libmicrovmi_py.errors import DriverUnavailableError, InvalidArgumentError, PermissionDeniedError, listed

_DOMAINS = "/local/domain"


def find(name: str, names: Mapping[int, str]) -> int:
    """The id of the domain that is called ``name``, or has that id, among ``names``.

    Raises ``InvalidArgumentError`` that lists what there is, and for dom0, which cannot look into itself.
    """
    found = next((domid for domid, known in names.items() if known == name), None)
    if found is None and name.isascii() and name.isdecimal() and int(name) in names:
        found = int(name)
    if found is None:
        there = listed([f"{known} ({domid})" for domid, known in sorted(names.items()) if domid])
        raise InvalidArgumentError(f"Xen has no domain {name}; there are: {there}")
    if found == 0:
        raise InvalidArgumentError(f"Xen domain {name} is dom0, which runs this program: name another domain")
    return found


class Store:
    """A connection to xenstore."""

    def __init__(self, libraries: Libraries, handle: Any) -> None:
        self._ffi, self._lib = libraries.store
        self._free = libraries.libc.lib.free
        self._handle = handle

    def names(self) -> dict[int, str]:
        """Every domain's name by its id; one that is just made, or ends, may have none: it is left out."""
        domids = [int(text) for text in self._list(_DOMAINS) if text.isdecimal()]
        names = {domid: self._read(f"{_DOMAINS}/{domid}/name") for domid in domids}
        return {domid: name for domid, name in names.items() if name is not None}

    def uuid(self, domid: int) -> str:
        """A domain's UUID, ``""`` if it has none."""
        return (self._read(f"{_DOMAINS}/{domid}/vm") or "").rpartition("/")[2]

    def _list(self, path: str) -> list[str]:
        count = self._ffi.new("unsigned *")
        items = self._lib.xs_directory(self._handle, 0, path.encode(), count)
        if items == self._ffi.NULL:
            raise _refused(self._ffi.errno)
        try:
            return [self._ffi.string(items[index]).decode(errors="replace") for index in range(count[0])]
        finally:
            self._free(items)

    def _read(self, path: str) -> str | None:
        length = self._ffi.new("unsigned *")
        value = self._lib.xs_read(self._handle, 0, path.encode(), length)
        if value == self._ffi.NULL:
            return None
        try:
            return bytes(self._ffi.buffer(value, length[0])).decode(errors="surrogateescape")
        finally:
            self._free(value)


@contextmanager
def connected(libraries: Libraries) -> Iterator[Store]:
    """Connect to xenstore. Raises ``DriverUnavailableError`` or ``PermissionDeniedError``."""
    ffi, lib = libraries.store
    handle = lib.xs_open(0)
    if handle == ffi.NULL:
        raise _refused(ffi.errno)
    try:
        yield Store(libraries, handle)
    finally:
        lib.xs_close(handle)


def _refused(code: int) -> DriverUnavailableError | PermissionDeniedError:
    if code in (errno.EACCES, errno.EPERM):
        return PermissionDeniedError("xenstore refused: run as root")
    return DriverUnavailableError(
        f"xenstore does not answer ({errno.errorcode.get(code, code)}): is xenstored running?"
    )
