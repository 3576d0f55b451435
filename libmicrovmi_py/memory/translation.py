# SPDX-License-Identifier: Apache-2.0
"""Page tables as C takes them, what C tells of a walk, and the errors of virtual addresses."""

from __future__ import annotations

import functools

from libmicrovmi_py.declare import Any
from libmicrovmi_py.errors import AccessError, InvalidArgumentError, NotMappedError
from libmicrovmi_py.memory.direct import access_error
from libmicrovmi_py.model import PHYSICAL_BITS, U64_MAX
from libmicrovmi_py.paging import PageRights, PageTables, Translation, TranslationFailure
from libmicrovmi_py.transport.native import native

NOWHERE = U64_MAX
"""MICROVMI_ADDRESS_UNKNOWN, for an address that there is not."""


class Space:
    """Page tables made ready for walks in C: whoever uses the pointer, or the address of the same, holds the object.

    ``step``: bytes of the smallest pages. Raises ``InvalidArgumentError`` for what no processor has.
    """

    def __init__(self, tables: PageTables) -> None:
        ffi, lib = native()
        if not all(0 <= value <= U64_MAX for value in tables) or tables.physical_bits > PHYSICAL_BITS:
            raise InvalidArgumentError(f"{tables} are no page tables: a number is not within 64 bits")
        given = ffi.new("struct microvmi_address_space *", (ffi.sizeof("struct microvmi_address_space"), *tables))
        self.tables = tables
        self.pointer: Any = ffi.new("struct mvi_space *")
        if (wrong := lib.mvi_space_prepare(self.pointer, given)) != ffi.NULL:
            raise InvalidArgumentError(f"the address space is wrong: {ffi.string(wrong).decode()}")
        self.address = int(ffi.cast("uintptr_t", self.pointer))
        self.entry_size = int(self.pointer.entry_size)
        self.step = 1 << min((half.page_shift for half in self.pointer.halves if half.levels), default=12)


@functools.lru_cache(maxsize=64)
def prepared(tables: PageTables) -> Space:
    """The same, for those who ask again and again for few."""
    return Space(tables)


def new_translation() -> Any:
    """A ``struct microvmi_translation`` of C, to be filled."""
    ffi = native().ffi
    return ffi.new("struct microvmi_translation *", (ffi.sizeof("struct microvmi_translation"),))


def behind_everything() -> Any:
    """The ``struct microvmi_translation`` of what is behind the last address."""
    row = new_translation()
    row.failure, row.physical_address, row.entry_address = TranslationFailure.NOT_CANONICAL, NOWHERE, NOWHERE
    return row


def translation_of(row: Any) -> Translation:
    """What a ``struct microvmi_translation`` says."""
    return Translation(
        TranslationFailure(row.failure),
        None if row.physical_address == NOWHERE else row.physical_address,
        row.page_size,
        PageRights(row.rights),
        row.level,
        row.entry,
        None if row.entry_address == NOWHERE else row.entry_address,
    )


def check_virtual(address: int) -> None:
    """Raise ``InvalidArgumentError`` unless a caller's address is within 64 bits."""
    if not 0 <= address <= U64_MAX:
        raise InvalidArgumentError(f"virtual address {address:#x} is not within 64 bits")


def virtual_error(code: int, address: int, size: int, done: int, end: Any) -> AccessError:
    """What an access ended with in C; ``end`` is the ``struct microvmi_translation`` that it ended at."""
    ffi, lib = native()
    text = ffi.new("char[]", lib.MVI_DESCRIPTION)
    lib.mvi_describe_virtual(code, address & U64_MAX, size, done, end, text, len(text))
    error = access_error(code, ffi.string(text).decode(), address + done, size, done)
    if isinstance(error, NotMappedError):
        error.translation = translation_of(end)
    return error
