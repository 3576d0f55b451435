# SPDX-License-Identifier: Apache-2.0
"""A fake of the Python package ``memflow``: one of our own with its names, no memflow and no connector behind it.

As with the real one there is no batch, errors are bare ``Exception``, a read makes a number of every item and gives
zeros for what does not exist, and a write there does nothing. It has three connectors: ``fake`` with the arguments
``size``, ``readonly``, ``unreadable`` and ``unwritable`` (an address each), ``failing``, whose every access fails, and
``panicking``, which ends in a panic.
"""

from __future__ import annotations

import os
import struct
from typing import Any


class PanicException(BaseException):
    """What a panic of Rust code is in Python."""


class _Type(type):
    def __mul__(cls, length: int) -> Any:
        return type("Array", (Array,), {"_type_": cls, "_length_": length})


class c_uint64(metaclass=_Type):
    _type_ = "Q"


class c_uint8(metaclass=_Type):
    _type_ = "B"


class Array:
    """Items of a type, as the real one has them."""

    _type_: Any
    _length_: int

    def __init__(self, *items: int) -> None:
        self._vals_ = items

    def __getitem__(self, key: Any) -> Any:
        return self._vals_[key]

    @classmethod
    def format(cls) -> struct.Struct:
        return struct.Struct(f"<{cls._length_}{cls._type_._type_}")


class Inventory:
    """The connectors; ``last_arguments`` is what the last one was made with."""

    last_arguments: str | None = None

    def __init__(self, path: str | None = None) -> None:
        if path is None:
            raise PanicException("every file of the working directory would be read")
        if not os.path.isdir(path):
            raise Exception("invalid path argument")
        self._empty = not os.path.exists(os.path.join(path, "memflow"))

    def create_connector(self, name: str, input: object = None, args: str | None = None) -> Connector:
        Inventory.last_arguments = args
        options = dict(item.split("=") for item in (args or ":").split(":")[1].split(",") if item)
        if name == "panicking":
            raise PanicException("index out of bounds:\n  the len is 0")
        if self._empty or name not in ("fake", "failing"):
            raise Exception("inventory: plugin not found")
        made = Connector(int(options.get("size", "0x10000"), 0), options.get("readonly") == "1", name == "failing")
        made.unreadable, made.unwritable = (int(options.get(key, "-1"), 0) for key in ("unreadable", "unwritable"))
        return made


class Connector:
    """Memory that holds, every 8 bytes, its own address."""

    unreadable = unwritable = -1

    def __init__(self, size: int, readonly: bool, failing: bool) -> None:
        self._content = bytearray(b"".join(address.to_bytes(8, "little") for address in range(0, size, 8)))
        self._failing = failing
        self.readonly = readonly
        self.max_address = size - 1
        self.calls = self.furthest = 0

    def phys_read(self, addr: int, type: type[Array]) -> Array:
        self.calls += 1
        form = type.format()
        if self._failing or addr <= self.unreadable < addr + form.size:
            raise Exception("failed to read bytes connector: unable to read from the target")
        self.furthest = max(self.furthest, addr + form.size)
        content = bytes(self._content[addr : addr + form.size]).ljust(form.size, b"\0")
        return type(*form.unpack(content))

    def phys_write(self, addr: int, type: type[Array], value: Any) -> None:
        if self._failing or addr <= self.unwritable < addr + type._length_:
            raise Exception("failed to write bytes connector: unable to write to the target")
        data = type.format().pack(*(value[index] for index in range(type._length_)))
        self._content[addr : addr + len(data)] = data[: max(0, len(self._content) - addr)]
