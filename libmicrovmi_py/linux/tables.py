# SPDX-License-Identifier: Apache-2.0
"""Where the tables of kallsyms are: by the names that the kernel's note has for them, since 6.0."""

from __future__ import annotations

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.linux import kallsyms
from libmicrovmi_py.linux.kallsyms import Offsets, PackedSymbols
from libmicrovmi_py.linux.vmcoreinfo import VmcoreInfo

if TYPE_CHECKING:
    from libmicrovmi_py.memory.virtual import AddressSpace

_NAMES = ("names", "num_syms", "token_table", "token_index", "offsets", "relative_base")


def named(space: AddressSpace, note: VmcoreInfo) -> PackedSymbols | None:
    """The tables that a note names, ``None`` if it names none. Without ``relative_base`` offsets count from themselves.

    Raises ``IoError`` for tables that cannot be, ``NotMappedError`` for some that are nowhere.
    """
    told = {name: note.symbol(f"kallsyms_{name}") for name in _NAMES}
    places = {name: address for name, address in told.items() if address is not None}
    if not places.keys() >= set(_NAMES[:-1]):
        return None
    number, base = _integer(space, places["num_syms"], 4), places.get("relative_base")
    kallsyms.check_number(number)
    content = space.read_virtual(places["offsets"], 4 * number)
    offsets = Offsets(content, places["offsets"], None if base is None else _integer(space, base, 8))
    behind = [address for address in places.values() if address > places["names"]]
    size = min([address - places["names"] for address in behind] + [kallsyms.MOST_NAMES])
    tokens = _prefix(space, places["token_table"], kallsyms.TOKEN_TABLE_SIZE)
    index = space.read_virtual(places["token_index"], kallsyms.TOKEN_INDEX_SIZE)
    names = _prefix(space, places["names"], size)
    return PackedSymbols(number, names, kallsyms.tokens_of(tokens, index), [offsets])


def _prefix(space: AddressSpace, address: int, size: int) -> bytes:
    """Up to ``size`` bytes, as many as are mapped."""
    content = bytearray(size)
    return bytes(memoryview(content)[: space.read_virtual_into(address, content)])


def _integer(space: AddressSpace, address: int, size: int) -> int:
    return int.from_bytes(space.read_virtual(address, size), "little")
