# SPDX-License-Identifier: Apache-2.0
"""Virtual memory of drivers that tell regions: each access is one call of C."""

from __future__ import annotations

from collections.abc import Iterable

from libmicrovmi_py.declare import TYPE_CHECKING, Any
from libmicrovmi_py.errors import AccessError, NotMappedError, ReadOnlyError
from libmicrovmi_py.memory.batch import Result, Whole, understood
from libmicrovmi_py.memory.direct import DirectMemory
from libmicrovmi_py.memory.translation import (
    Space,
    behind_everything,
    check_virtual,
    new_translation,
    virtual_error,
)
from libmicrovmi_py.model import U64_MAX
from libmicrovmi_py.transport.native import functions, native

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_ASK_PYTHON = -1


class DirectVirtual:
    """By virtual address, as ``VirtualMemory``."""

    def __init__(self, direct: DirectMemory, space: Space) -> None:
        self._direct = direct
        self._space = space
        self._table = direct.table
        self._tables = space.address
        self._read_virtual = functions().read_virtual
        self._fill_virtual = functions().fill_virtual

    def read(self, address: int, size: int) -> bytes:
        """All of it, or an error."""
        found = self._read_virtual(self._table().address, self._tables, address, size)
        if type(found) is bytes:
            return found
        raise _error(address, size, found)

    def read_some(self, address: int, size: int) -> bytes:
        """What there is up to the first byte that there is not; an error if that is the first."""
        found = self._read_virtual(self._table().address, self._tables, address, size)
        if type(found) is bytes:
            return found
        code, begun, *_ = found
        if code == NotMappedError.code and begun:
            return bytes(begun)
        raise _error(address, size, found)

    def read_into(self, address: int, buffer: memoryview) -> int:
        """As ``PhysicalMemory.read_into``."""
        if not (stopped := self._fill(False, address, buffer)):
            return len(buffer)
        if stopped[0] != NotMappedError.code:
            raise _error(address, len(buffer), stopped)
        done: int = stopped[1]
        return done

    def read_exactly_into(self, address: int, buffer: memoryview, ready: int = 0) -> None:
        """As ``PhysicalMemory.read_exactly_into``; ``ready`` bytes were read already, and are read once more."""
        if stopped := self._fill(False, address, buffer):
            raise _error(address, len(buffer), stopped)

    def read_padded_into(self, address: int, buffer: memoryview, ready: int = 0) -> None:
        """As ``PhysicalMemory.read_padded_into``; as above."""
        if stopped := self._fill(True, address, buffer):
            raise _error(address, len(buffer), stopped)

    def _fill(self, padded: bool, address: int, buffer: memoryview) -> Any:
        """Nothing if all was filled; else what C tells of the end."""
        if not 0 <= address <= U64_MAX:
            check_virtual(address)
        return self._fill_virtual(self._table().address, self._tables, padded, address, buffer)

    def write_from(self, address: int, data: memoryview) -> None:
        """As ``PhysicalMemory.write_from``."""
        check_virtual(address)
        code, done, end = self._write(address, data, checked=False)
        if code == _ASK_PYTHON:
            for start, size in self._pieces(address, len(data)):
                self._direct.prepare_write(start, size)
            code, done, end = self._write(address, data, checked=True)
        if code:
            refused = code in (NotMappedError.code, ReadOnlyError.code)  # nothing was written
            at = address + done
            raise virtual_error(code, *((at, len(data), 0) if refused else (address, len(data), done)), end)

    def _write(self, address: int, data: memoryview, *, checked: bool) -> tuple[int, int, Any]:
        ffi, lib = native()
        done, end, table = ffi.new("uint64_t *"), new_translation(), self._direct.table()
        source = ffi.from_buffer("uint8_t[]", data)
        code = lib.mvi_virtual_write(table.pointer, self._space.pointer, address, source, len(data), checked, done, end)
        return code, done[0], end

    def _pieces(self, address: int, size: int) -> Iterable[tuple[int, int]]:
        """Where the bytes of a range lie, as far as they lie anywhere: physical address and size, page by page."""
        end = min(address + size, 1 << 64)
        while address < end:
            found = self.translate(address)
            covered = max(found.page_size, self._space.step)
            part = min(covered - address % covered, end - address)
            if not found.failure:
                yield found.physical_address, part
            address += part

    def translate(self, address: int) -> Any:
        """The ``struct microvmi_translation`` of an address; one that is not mapped is no error."""
        check_virtual(address)
        end, table = new_translation(), self._direct.table()
        code = native().lib.mvi_virtual_translate(table.pointer, self._space.pointer, address, end)
        if code and code != NotMappedError.code:
            raise virtual_error(code, address, 0, 0, end)
        return end

    def read_batch(self, requests: Iterable[tuple[int, WriteableBuffer]]) -> list[Result]:
        """As ``PhysicalMemory.read_batch``."""
        table, pairs = self._direct.table(), list(requests)
        found = functions().read_batch(table.address, pairs, self._space.address)
        if isinstance(found, int):
            found = functions().read_batch(table.address, understood(pairs, check_virtual), self._space.address)
        assert isinstance(found, list)
        whole = Whole()
        return [
            whole[item] if isinstance(item, int) else self._failed(request, *item)
            for item, request in zip(found, pairs, strict=True)
        ]

    def _failed(self, request: tuple[int, WriteableBuffer], code: int, done: int) -> Result:
        """The translation that it ended at is looked up once more: in a batch it is not kept."""
        (address, buffer), end = request, behind_everything()
        if address + done <= U64_MAX and code == NotMappedError.code:
            table = self._direct.table()
            native().lib.mvi_virtual_translate(table.pointer, self._space.pointer, address + done, end)
        return Result(done, virtual_error(code, address, memoryview(buffer).nbytes, done, end))


def _error(address: int, size: int, stopped: Any) -> AccessError:
    """What C tells of a read that was not whole: the code, how much of it there is (or that itself), and at which
    translation it ended, of which all members follow."""
    code, done, *members = stopped
    end = new_translation()
    end.failure, end.physical_address, end.page_size, end.rights, end.level, end.entry, end.entry_address = members
    return virtual_error(code, address, size, done if isinstance(done, int) else len(done), end)
