# SPDX-License-Identifier: Apache-2.0
"""Frames of a domain, mapped into this process through libxenforeignmemory."""

from __future__ import annotations

import errno
from array import array
from collections.abc import Sequence

from libmicrovmi_py.declare import Any
from libmicrovmi_py.drivers.xen.library import Libraries
from libmicrovmi_py.drivers.xen.xenctrl import Domain, unopened
from libmicrovmi_py.errors import was_closed
from libmicrovmi_py.model import PAGE_SHIFT

_READ, _WRITE = 1, 2


class Mapping:
    """Mapped frames, one behind the other. They stay mapped as long as anybody holds this object or a view of it."""

    __slots__ = ("_buffer", "errors", "whole")

    def __init__(self, buffer: Any, errors: array[int]) -> None:
        self._buffer = buffer
        self.errors = errors
        """0 for a frame that exists, an errno below 0 for one that does not and must not be touched."""
        self.whole = not any(errors)

    def view(self) -> memoryview:
        """All the bytes."""
        return memoryview(self._buffer)

    def there(self, first: int = 0) -> int:
        """How many frames exist without a gap from the ``first`` one on."""
        count = len(self.errors) - first
        return count if self.whole else next((n for n in range(count) if self.errors[first + n]), count)

    def lacking(self, first: int = 0) -> int:
        """How many frames do not exist, likewise."""
        count = len(self.errors) - first
        return next((n for n in range(count) if not self.errors[first + n]), count)

    @property
    def empty(self) -> bool:
        """Whether none of the frames exists."""
        return all(self.errors)


class Mapper:
    """Maps frames of one domain. Xen keeps a page alive as long as it is mapped here, also when the domain ended."""

    def __init__(self, libraries: Libraries, domain: Domain) -> None:
        """Raises ``DriverUnavailableError`` or ``PermissionDeniedError``."""
        self._ffi, self._lib = libraries.memory
        self._domain = domain
        handle = self._lib.xenforeignmemory_open(libraries.log, 0)
        if handle == self._ffi.NULL:
            raise unopened("Xen's foreign memory", self._ffi.errno)
        self._handle: Any = self._ffi.gc(handle, self._lib.xenforeignmemory_close)

    def close(self) -> None:
        """Let go of the handle; mappings that somebody uses keep it until they end."""
        self._handle = None

    def map(self, frames: Sequence[int], *, writable: bool = False) -> Mapping:
        """Map ``frames`` in one call. Raises ``VmGoneError``, or ``IoError`` if the kernel cannot."""
        handle, ffi = self._handle, self._ffi
        if handle is None:
            raise was_closed()
        count = len(frames)
        errors = array("i", bytes(4 * count))
        address = self._lib.xenforeignmemory_map(
            handle,
            self._domain.domid,
            _READ | _WRITE if writable else _READ,
            count,
            ffi.from_buffer("unsigned long[]", array("L", frames)),
            ffi.from_buffer("int[]", errors),
        )
        if address == ffi.NULL:
            raise self._domain.failure(f"mapping {count} frames from {frames[0]:#x} on", ffi.errno)
        unmap = self._lib.xenforeignmemory_unmap
        pages = ffi.gc(address, lambda mapped: unmap(handle, mapped, count))
        mapping = Mapping(ffi.buffer(pages, count << PAGE_SHIFT), errors)
        if mapping.empty:
            self._check_alive(errors[0])
        return mapping

    def _check_alive(self, code: int) -> None:
        """Of a domain that ended, no frame exists."""
        if code == -errno.ESRCH:
            raise self._domain.ended()
        self._domain.info()
