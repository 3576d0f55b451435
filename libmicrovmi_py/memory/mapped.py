# SPDX-License-Identifier: Apache-2.0
"""Everything that page tables map, as ranges: the walk is in C, which says which tables it needs."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterator

from libmicrovmi_py.declare import Any, NamedTuple
from libmicrovmi_py.errors import InvalidArgumentError, NotMappedError
from libmicrovmi_py.memory.physical import PhysicalMemory
from libmicrovmi_py.memory.translation import Space
from libmicrovmi_py.model import U64_MAX
from libmicrovmi_py.paging import PageRights, VirtualRange
from libmicrovmi_py.transport.native import give_way, native

_AT_ONCE = 512
"""How many ranges are asked of C at once."""

_ROW = struct.Struct("=QQQII")
"""``struct microvmi_virtual_range``."""

_rights = functools.cache(PageRights)


class Only(NamedTuple):
    """What is told: what has all these rights, and none of those."""

    having: PageRights = PageRights(0)
    lacking: PageRights = PageRights(0)


_ALL = Only()


def mapped(
    memory: PhysicalMemory, space: Space, start: int, end: int, check: Callable[[], None], only: Only = _ALL
) -> Iterator[VirtualRange]:
    """As ``AddressSpace.mapped``. ``check`` is called before anything is read, and now and then: it may raise."""
    if not 0 <= start <= U64_MAX + 1 or not 0 <= end <= U64_MAX + 1:
        raise InvalidArgumentError(f"addresses from {start:#x} to {end:#x} are not within 64 bits")
    return _joined(_walks(memory, space, start, end - 1, check, only)) if start < end else iter(())


def _joined(walks: Iterator[list[VirtualRange]]) -> Iterator[VirtualRange]:
    """The ranges of walks that follow each other: one that ended early may have cut a range in two."""
    last: VirtualRange | None = None
    for found in walks:
        if not found:
            continue
        if last is not None and _goes_on(last, found[0]):
            found[0] = last._replace(size=last.size + found[0].size)
        elif last is not None:
            yield last
        last = found.pop()
        yield from found
    if last is not None:
        yield last


def _goes_on(first: VirtualRange, second: VirtualRange) -> bool:
    follows = second.start == first.end and second.physical_address == first.physical_address + first.size
    return follows and (first.rights, first.page_size) == (second.rights, second.page_size)


def _walks(
    memory: PhysicalMemory, space: Space, start: int, last: int, check: Callable[[], None], only: Only
) -> Iterator[list[VirtualRange]]:
    """What walk after walk finds, each from where the one before ended."""
    ffi, lib = native()
    runs = ffi.gc(lib.mvi_runs_new(), lib.mvi_runs_free)
    if runs == ffi.NULL:
        raise MemoryError("no memory for a walk over page tables")
    rows, requests = ffi.new("struct microvmi_virtual_range[]", _AT_ONCE), ffi.new("struct microvmi_read_request **")
    address = ffi.new("uint64_t *", start)
    while True:
        check()
        lib.mvi_runs_begin(runs, space.pointer, address[0], last, rows, _AT_ONCE)
        lib.mvi_runs_only(runs, only.having, only.lacking)
        while wanted := lib.mvi_runs_want(runs, requests):
            _read_tables(memory, runs, requests[0][0:wanted])
        count = lib.mvi_runs_end(runs, address)
        yield [
            VirtualRange(start, size, physical_address, _rights(rights), page_size)
            for start, size, physical_address, rights, page_size in _ROW.iter_unpack(
                bytes(ffi.buffer(rows, count * _ROW.size))
            )
        ]
        if address[0] == 0:
            return
        give_way()


def _read_tables(memory: PhysicalMemory, runs: Any, requests: Any) -> None:
    """Do the reads that a walk wants, in one trip."""
    if memory.direct is not None:
        memory.direct.read_tables(runs)
        return
    buffer = native().ffi.buffer
    results = memory.read_batch([(item.physical_address, buffer(item.buffer, item.size)) for item in requests])
    for item, result in zip(requests, results, strict=True):
        item.bytes_read, item.error = result.done, 0
        if isinstance(result.error, NotMappedError):
            item.error = NotMappedError.code
        elif result.error is not None:
            raise result.error
