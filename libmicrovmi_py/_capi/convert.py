# SPDX-License-Identifier: Apache-2.0
"""C values to Python values and back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from operator import attrgetter

from _libmicrovmi import ffi, lib

from libmicrovmi_py.abilities import Abilities
from libmicrovmi_py.declare import TYPE_CHECKING, Any, NamedTuple
from libmicrovmi_py.errors import InvalidArgumentError
from libmicrovmi_py.events import (
    Event,
    EventKind,
    Intercept,
    InterceptFlag,
    PageAccess,
    Reply,
    ReplyAction,
    Stands,
    check_flags,
)
from libmicrovmi_py.model import DriverType, MemoryRange
from libmicrovmi_py.params import Parameters

if TYPE_CHECKING:
    from libmicrovmi_py.arch import Registers


@cache
def _by_tag() -> dict[int, type[Registers]]:
    from libmicrovmi_py.arch import Registers  # of whom reads memory only, nobody needs them

    return {kind.architecture: kind for kind in Registers.__args__}


class _Shape(NamedTuple):
    """A class of registers: its member of the union in ``struct Registers``, and its own members, of the same names.

    ``numbers``: those that are a number. ``parts``: those that are dataclasses of numbers, with their class and what
    gets all members of one.
    """

    member: str
    numbers: tuple[str, ...]
    parts: tuple[tuple[str, Any, attrgetter[tuple[int, ...]]], ...]


@cache
def _shape(tag: int) -> _Shape:
    """That of an architecture's registers, which are numbers and parts as they are when nothing is told."""
    kind = _by_tag()[tag]
    members = {name: type(getattr(kind(), name)) for name in kind.__match_args__}
    numbers = tuple(name for name, part in members.items() if part is int)
    parts = ((name, part, attrgetter(*part.__match_args__)) for name, part in members.items() if part is not int)
    return _Shape(kind.architecture.name.lower(), numbers, tuple(parts))


def text(pointer: Any, name: str) -> str | None:
    """A C string as text, ``None`` for NULL; ``name`` is for the error if it is not UTF-8."""
    if pointer == ffi.NULL:
        return None
    try:
        return ffi.string(pointer).decode("utf-8")  # type: ignore[no-any-return]
    except UnicodeDecodeError as err:
        raise InvalidArgumentError(f"{name} is not UTF-8: {err.reason} at byte {err.start}") from None


def buffer(pointer: Any, size: int) -> memoryview:
    """``size`` bytes of the caller's memory, without a copy."""
    return memoryview(ffi.buffer(pointer, size)) if size else memoryview(bytearray())


def driver_type(pointer: Any) -> DriverType | None:
    """A driver type behind a pointer, ``None`` for NULL."""
    if pointer == ffi.NULL:
        return None
    try:
        return DriverType(pointer[0])
    except ValueError:
        raise InvalidArgumentError(f"there is no driver type {pointer[0]}") from None


def parameters(pointer: Any) -> Parameters:
    """A ``DriverInitParamsFFI`` as parameters; members of an unknown tag are left out."""
    if pointer == ffi.NULL:
        return Parameters()
    values = {
        "vm_name": text(pointer.common.vm_name, "vm_name"),
        "memflow_connector_name": text(pointer.memflow.connector_name, "connector_name"),
    }
    if pointer.kvm.tag == lib.UnixSocket:
        values["kvm_unix_socket"] = text(pointer.kvm.unix_socket.path, "path")
    connector = pointer.memflow.connector_args
    if connector.tag == lib.Default and connector.default_.args_arr != ffi.NULL:
        items = ffi.unpack(connector.default_.args_arr, connector.default_.args_arr_len)
        values["memflow_connector_args"] = ",".join(text(item, "args_arr") or "" for item in items)
    return Parameters(values)


def fill_registers(target: Any, registers: Registers) -> None:
    """Store registers in a ``struct Registers``, by the tag of their architecture."""
    shape = _shape(registers.architecture)
    target.tag = registers.architecture
    struct = getattr(target, shape.member)
    for name in shape.numbers:
        setattr(struct, name, getattr(registers, name))
    for name, part, _ in shape.parts:
        inner, source = getattr(struct, name), getattr(registers, name)
        for member in part.__match_args__:
            setattr(inner, member, getattr(source, member))


def registers(source: Any) -> Registers:
    """A ``struct Registers`` as registers; an unknown tag is an ``InvalidArgumentError``."""
    kind = _by_tag().get(source.tag)
    if kind is None:
        raise InvalidArgumentError(f"registers: there is no tag {source.tag}")
    shape = _shape(kind.architecture)
    struct = getattr(source, shape.member)
    values = {name: getattr(struct, name) for name in shape.numbers}
    for name, part, attributes in shape.parts:
        values[name] = part(*attributes(getattr(struct, name)))
    return kind(**values)


def fill_abilities(target: Any, abilities: Abilities) -> None:
    """Store what a machine can in a ``struct microvmi_abilities`` of zeros."""
    events = abilities.events
    target.can = int(abilities.can)
    target.breakpoints = sum(events.breakpoints)
    for kind in EventKind:
        target.answers[kind] = sum(1 << action for action in events.kinds.get(kind, ()))
        target.flags[kind] = events.flags.get(kind, InterceptFlag.NONE)
        target.stands[kind] = events.stands if kind in events.kinds else Stands.NOTHING


def page_access(bits: int) -> PageAccess:
    """Bits of ``enum microvmi_page_access``; others are an ``InvalidArgumentError``."""
    if bits > PageAccess.ALL:
        raise InvalidArgumentError(f"access is {bits:#x}: not made of read (1), write (2) and execute (4)")
    return PageAccess(bits)


def intercept(pointer: Any) -> Intercept:
    """A ``struct microvmi_intercept``."""
    try:
        kind = EventKind(pointer.kind)
    except ValueError:
        raise InvalidArgumentError(f"there is no kind of event {pointer.kind}") from None
    if pointer.reserved:
        raise InvalidArgumentError("an intercept's reserved member is not 0")
    flags, access = check_flags(pointer.flags), page_access(pointer.access)
    return Intercept(kind, pointer.number, pointer.address, pointer.size, access, flags)


def fill_event(target: Any, event: Event) -> None:
    """Store an event in a ``struct microvmi_event``."""
    for name in Event.__slots__:
        setattr(target, name, int(getattr(event, name)))


def reply(action: int, source: Any) -> Reply:
    """An action and a ``struct Registers``, or NULL."""
    try:
        known = ReplyAction(action)
    except ValueError:
        raise InvalidArgumentError(f"there is no reply action {action}") from None
    return Reply(known, None if source == ffi.NULL else registers(source))


def fill_ranges(rows: Any, capacity: int, ranges: Sequence[MemoryRange]) -> int:
    """Fill ``struct microvmi_memory_range`` with as many ranges as there is room for; how many there are."""
    for index, item in enumerate(ranges[:capacity]):
        rows[index] = {"start": item.start, "size": item.size, "kind": item.kind, "reserved": (0, 0, 0)}
    return len(ranges)
