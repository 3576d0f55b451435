# SPDX-License-Identifier: Apache-2.0
"""The registers of every vCPU out of the group ``cpu`` of a VMware machine's state.

A register is a tag of its own, or one of several in a block; the first index is the vCPU's, the second the register's.
The names and the orders are those that crash and Volatility know. What the state has beside them (MSRs, the limits and
attributes of segments) nobody has described: it stays unknown.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping

from libmicrovmi_py.arch.state import VcpuState
from libmicrovmi_py.arch.x86.registers import NUMBERED
from libmicrovmi_py.drivers.dump.contents import Processors
from libmicrovmi_py.drivers.dump.vmware_groups import Groups, Tag
from libmicrovmi_py.model import Architecture

_MOST_VCPUS = 1 << 12

_GENERAL = ("rax", "rcx", "rdx", "rbx", "rbp", "rsp", "rsi", "rdi", *NUMBERED)
"""In the order of the block ``gpregs``."""
_SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "ldt", "tr")
_CONTROL = ("cr0", "", "cr2", "cr3", "cr4", "", "", "", "cr8")
_DEBUG = ("dr0", "dr1", "dr2", "dr3", "", "", "dr6", "dr7")
_ROWS: Mapping[str, tuple[str, ...]] = {
    "CR64": _CONTROL,
    "DR64": _DEBUG,
    "S": tuple(f"{name}_selector" for name in _SEGMENTS),
    "S.base64": tuple(f"{name}_base" for name in _SEGMENTS),
}
"""Registers by their second index."""
_NARROW_ROWS: Mapping[str, tuple[str, ...]] = {"CR": _CONTROL, "DR": _DEBUG}
"""Their lower 32 bits: all that there is of a machine that has no others."""
_BLOCKS: Mapping[str, tuple[str, ...]] = {"gpregs": _GENERAL, "CR64": _CONTROL}
_TABLES = {"GDTR": "gdt", "IDTR": "idt"}
_TABLE = struct.Struct("<HQ")
_WIDTHS = {"cr8": 4, **{name: 16 for name in _ROWS["S"]}}


def processors(groups: Groups, producer: str) -> Processors:
    """The vCPUs: as many as the state says, each with what is known of it. Raises ``IoError`` for a state that lies."""
    count, found = 0, dict[int, _Vcpu]()
    for tag in groups.tags("cpu"):
        if tag.name == "cpu:numVCPUs":
            count = groups.number(tag)
        elif tag.indices and tag.indices[0] < _MOST_VCPUS:
            found.setdefault(tag.indices[0], _Vcpu()).take(tag, groups)
    if count > _MOST_VCPUS:
        raise groups.image.damaged(f"it has {count} vCPUs")
    known = [found[vcpu].values() if vcpu in found else {} for vcpu in range(count)]
    return Processors(count, [VcpuState(Architecture.X86, values) for values in known], producer=producer)


class _Vcpu:
    """The registers of one vCPU, as the tags tell them one after the other."""

    def __init__(self) -> None:
        self._wide: dict[str, int] = {}
        self._narrow: dict[str, int] = {}
        self._flags: int | None = None
        self._tables: dict[tuple[str, int], int] = {}

    def take(self, tag: Tag, groups: Groups) -> None:
        """Take what a tag tells; nothing of one that is not known."""
        if tag.block:
            self._wide.update(_of_block(tag.name, groups.content(tag)))
        elif len(tag.indices) == 1:
            self._take_single(tag.name, groups.number(tag))
        elif len(tag.indices) == 2:
            self._take_one_of(tag.name, tag.indices[1], groups.number(tag))

    def _take_single(self, name: str, value: int) -> None:
        if name in _GENERAL or name == "rip":
            self._wide[name] = value
        elif name == "eip":
            self._narrow["rip"] = value
        elif name in ("eflags", "EFLAGS"):  # some of the flags are in the one, the others in the other
            self._flags = (self._flags or 0) | value

    def _take_one_of(self, name: str, index: int, value: int) -> None:
        if name in _TABLES:
            self._tables[_TABLES[name], index] = value
        rows, known = (_NARROW_ROWS, self._narrow) if name in _NARROW_ROWS else (_ROWS, self._wide)
        row = rows.get(name, ())
        if index < len(row):
            known[row[index]] = value

    def values(self) -> dict[str, int]:
        """All registers that are known, and that are such as there can be."""
        found = {**self._narrow, **dict(self._of_tables()), **self._wide}
        if self._flags is not None:
            found["rflags"] = self._flags
        return {name: value for name, value in found.items() if name and value < 1 << _WIDTHS.get(name, 64)}

    def _of_tables(self) -> Iterator[tuple[str, int]]:
        """A table's limit is its first number, the halves of the base are the second and the third."""
        for name in _TABLES.values():
            parts = [self._tables.get((name, index)) for index in range(3)]
            if None not in parts:
                limit, low, high = (part or 0 for part in parts)
                yield from _table(name, limit, low & 0xFFFFFFFF | (high & 0xFFFFFFFF) << 32)


def _of_block(name: str, content: bytes) -> Iterable[tuple[str, int]]:
    if name in _TABLES and len(content) == _TABLE.size:
        return _table(_TABLES[name], *_TABLE.unpack(content))
    row = _BLOCKS.get(name, ())
    if not row or len(content) != 8 * len(row):
        return ()
    return zip(row, struct.unpack(f"<{len(row)}Q", content), strict=True)


def _table(name: str, limit: int, base: int) -> Iterable[tuple[str, int]]:
    return (f"{name}_limit", limit & 0xFFFF), (f"{name}_base", base)
