# SPDX-License-Identifier: Apache-2.0
"""A driver that has its memory from a foreign library: the C library fills its frames."""

from __future__ import annotations

from typing import Any, ClassVar

from libmicrovmi_py.drivers.base import Driver
from libmicrovmi_py.errors import NotMappedError
from libmicrovmi_py.params import Parameters
from libmicrovmi_py.transport.foreign import load

SIZE = 1 << 20


class Borrower(Driver):
    """1 MiB of bytes 0x5a."""

    name = "borrower"
    automatic = False
    parameters: ClassVar[dict[str, str]] = {"library": "the C library's file name"}

    def __init__(self, libc: Any) -> None:
        self._libc = libc

    @classmethod
    def open(cls, params: Parameters) -> Borrower:
        names = (params.get("library", "libc.so.6"),)
        return cls(load(names, "struct anything { int x; }; void *memset(void *s, int c, size_t n);"))

    @property
    def max_addr(self) -> int:
        return SIZE

    def read_frame(self, frame: int, offset: int, buffer: memoryview) -> None:
        if frame >= SIZE >> 12:
            raise NotMappedError("beyond the end", address=frame << 12)
        self._libc.lib.memset(self._libc.ffi.from_buffer(buffer), 0x5A, len(buffer))

    def close(self) -> None: ...


DRIVER = Borrower
