# SPDX-License-Identifier: Apache-2.0
"""What drgn asks for by name, out of a kernel's BTF and kallsyms: types, variables, constants, functions, symbols."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property

import drgn

from libmicrovmi_py.linux.btf import Kind
from libmicrovmi_py.linux.kernel import Kernel
from libmicrovmi_py.tools.declarations import Declarations
from libmicrovmi_py.tools.drgn.types import TypeMaker
from libmicrovmi_py.tools.variables import VARIABLES

NAME = "btf"
_LARGEST = 1 << 20
"""Bytes that a variable may have of which only the next symbol tells how long it is."""


def add_finders(prog: drgn.Program, kernel: Kernel) -> None:
    """Have a program find what the kernel knows. Raises ``NotSupportedError`` for one that does not tell its types."""
    finders = Finders(prog, kernel)
    prog.register_type_finder(NAME, finders.find_type, enable_index=-1)
    prog.register_object_finder(NAME, finders.find_object, enable_index=-1)
    prog.register_symbol_finder(NAME, finders.find_symbols, enable_index=-1)


class Finders:
    """The three that drgn has."""

    def __init__(self, prog: drgn.Program, kernel: Kernel) -> None:
        self._symbols, self._types = kernel.symbols, kernel.known_types()
        self._maker = TypeMaker(prog, self._types)

    def find_type(
        self, prog: drgn.Program, kinds: Sequence[drgn.TypeKind], name: str, filename: str | None
    ) -> drgn.Type | None:
        """A type by its name; which file declares it is not known."""
        return None if filename else self._maker.find(kinds, name)

    def find_object(
        self, prog: drgn.Program, name: str, flags: drgn.FindObjectFlags, filename: str | None
    ) -> drgn.Object | None:
        """A variable, function or constant by its name."""
        if filename:
            return None
        address = self._symbols.get(name)
        if address is not None and flags & drgn.FindObjectFlags.VARIABLE and (found := self._variable(prog, name)):
            return drgn.Object(prog, found, address=address)
        if address is not None and flags & drgn.FindObjectFlags.FUNCTION and name in self._functions:
            return drgn.Object(prog, self._maker.made(self._functions[name]), address=address)
        if flags & drgn.FindObjectFlags.CONSTANT and name in self._constants:
            number, value = self._constants[name]
            return drgn.Object(prog, self._maker.made(number), value)
        return None

    def find_symbols(self, prog: drgn.Program, name: str | None, address: int | None, one: bool) -> list[drgn.Symbol]:
        """Symbols by name, by an address within, or all."""
        if address is not None:
            try:
                found = [self._symbols.at(address)[0]]
            except KeyError:
                return []
            return [self._symbol(item, address) for item in found if name in (None, item)]
        if name is not None:
            places = self._symbols.all(name)
            return [self._symbol(name, place) for place in places[: 1 if one else None]]
        return [self._symbol(item, place) for place, _, item in self._symbols]

    def _symbol(self, name: str, within: int) -> drgn.Symbol:
        try:
            start = within - self._symbols.at(within)[1]
        except KeyError:
            start = within
        return drgn.Symbol(name, start, self._room(start), drgn.SymbolBinding.UNKNOWN, drgn.SymbolKind.UNKNOWN)

    def _variable(self, prog: drgn.Program, name: str) -> drgn.Type | None:
        """The type of a variable: as the kernel tells it, else as the table has it."""
        if (number := self._told.get(name)) is not None:
            return self._maker.made(number)
        if name not in VARIABLES:
            return None
        number, stars, count = Declarations(self._types).find(VARIABLES[name])
        if number is None:
            return None
        found = self._maker.made(number)
        for _ in range(stars):
            found = prog.pointer_type(found)
        if count is None:
            return found
        if count < 0:
            room = self._room(self._symbols.address(name))
            count = room // max(8 if stars else self._types.size_of(number), 1)
        return prog.array_type(found, count) if count else prog.array_type(found)

    def _room(self, address: int) -> int:
        """Bytes from a symbol to the next one."""
        place = bisect_right(self._starts, address)
        return min(self._starts[place] - address, _LARGEST) if place < len(self._starts) else 0

    @cached_property
    def _starts(self) -> list[int]:
        return sorted({address for address, _, _ in self._symbols})

    @cached_property
    def _told(self) -> dict[str, int]:
        """The numbers of the types of those variables of which the kernel tells them."""
        return {record.name: record.size_or_type for record in self._types.of(Kind.VAR)}

    @cached_property
    def _functions(self) -> dict[str, int]:
        return {record.name: record.size_or_type for record in self._types.of(Kind.FUNC)}

    @cached_property
    def _constants(self) -> dict[str, tuple[int, int]]:
        """All constants of enumerations: the number of its type, and the value."""
        return {name: (number, value) for name, number, value in self._types.constants()}
