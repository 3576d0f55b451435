# SPDX-License-Identifier: Apache-2.0
"""Structures of the kernel in the guest's memory, and lists of them; a guest may have written anything there."""

from __future__ import annotations

from collections.abc import Iterator

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.errors import IoError
from libmicrovmi_py.linux.btf import Structure
from libmicrovmi_py.model import U64_MAX

if TYPE_CHECKING:
    from libmicrovmi_py.linux.kernel import Kernel

_LARGEST = 1 << 16
"""Bytes of a structure that is read."""

_LONGEST_TEXT = 64


class Object:
    """A structure as it was when it was read; members are named ``member`` or ``member.member``.

    Reading raises ``NotMappedError``; a member that the kernel does not have is a ``NoSuchTypeError``.
    """

    __slots__ = ("_content", "address", "structure")

    def __init__(self, kernel: Kernel, structure: Structure, address: int) -> None:
        if structure.size > _LARGEST:
            raise IoError(f"the kernel's BTF has a structure {structure.name} of {structure.size} bytes")
        self.structure, self.address = structure, address & U64_MAX
        self._content = kernel.space.read_virtual(self.address, structure.size)

    def __contains__(self, member: str) -> bool:
        return member in self.structure

    def content(self, member: str) -> bytes:
        """The bytes of a member."""
        field = self.structure.field(member)
        return self._content[field.offset : field.offset + field.size]

    def number(self, member: str) -> int:
        """A number, or an address, that a member is."""
        field = self.structure.field(member)
        return int.from_bytes(self._content[field.offset : field.offset + field.size], "little", signed=field.signed)

    def numbers(self, member: str) -> list[int]:
        """The words of 64 bits that a member is made of."""
        content = self.content(member)
        return [int.from_bytes(content[at : at + 8], "little") for at in range(0, len(content) - 7, 8)]

    def text(self, member: str) -> bytes:
        """The text that a member holds, as much of it as names of the kernel's have."""
        return self.content(member)[:_LONGEST_TEXT].partition(b"\0")[0]

    def place(self, member: str) -> int:
        """The address of a member."""
        return self.address + self.structure.offset(member)


def read(kernel: Kernel, name: str, address: int) -> Object:
    """The structure of a name at an address. Raises ``NotSupportedError`` for a kernel without types."""
    return Object(kernel, kernel.known_types().struct(name), address)


class ChangedError(IoError):
    """A list that was changed while it was read, or is damaged."""


def listed(kernel: Kernel, head: int, name: str, member: str, most: int) -> Iterator[Object]:
    """The structures of a name that are chained by a member (``struct list_head``) to ``head``, at most so many.

    Raises ``ChangedError`` as soon as one does not point back to where it was come from.
    """
    structure = kernel.known_types().struct(name)
    offset = structure.offset(member)
    before, at = head, kernel.pointer(head)
    for _ in range(most):
        if at == head:
            return
        item = Object(kernel, structure, at - offset)
        if item.number(f"{member}.prev") != before:
            raise ChangedError(f"the list of {name} is damaged at {at:#x}, or changed while it was read")
        yield item
        before, at = at, item.number(f"{member}.next")
    raise IoError(f"the list of {name} does not end after {most} of them")
