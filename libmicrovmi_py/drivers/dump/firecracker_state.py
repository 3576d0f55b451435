# SPDX-License-Identifier: Apache-2.0
"""What the state of a Firecracker machine tells: the version of the snapshot, how much memory, and its vCPUs.

Up to version 8 (Firecracker 1.14) it is what bincode makes of it: numbers of a fixed size, one structure after the
other. Since version 9 it is what bitcode makes of it: the same field of all elements of a list together, numbers in as
many bytes as the largest needs. Both begin with a magic, the version as a text, and the MiB of memory. What is between
that and the vCPUs is different in each version, so the structures of KVM are looked for, by the sizes that they have.
All little-endian. https://github.com/firecracker-microvm/firecracker (docs/snapshotting/versioning.md, src/vmm).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.saved import kvmstate
from libmicrovmi_py.drivers.saved.kvmstate import SIZE_REGS, SIZE_SREGS
from libmicrovmi_py.model import PHYSICAL_BITS

_LARGEST_STATE = 16 << 20
_FIRST_PACKED, _LAST = 9, 11
"""The versions of snapshots since which the state is packed, and up to which it is known."""
_X86 = b"\x64\x86\x84\x19\x10\x07"
_MAGIC_SIZE = 8
_MIB = 1 << 20
_PACKINGS = {0: 8, 2: 4, 4: 2, 6: 1}
"""The bytes of a number that is packed, by the byte in front of it."""

_SIZES = (("debug", 128), ("apic", 1024), ("run", 4), ("regs", 144), ("sregs", 312), ("events", 64), ("xcrs", 392))
"""KVM's structures of a vCPU, in the order of the file: ``kvm_debugregs``, ``kvm_lapic_state``, ``kvm_mp_state`` ..."""
_ROW = sum(8 + size for _, size in _SIZES)
_ANCHOR = sum(8 + size for _, size in _SIZES[:3])
_XSAVE, _LONG_XSAVE = 4096, 4104
"""Bytes of ``kvm_xsave``, and of ``kvm_xsave2``, behind which there are more in fours."""
_DEBUG = struct.Struct("<4Q2Q")
_MSR, _HEAD = struct.Struct("<QI4xQ"), 8
_MOST_VCPUS, _MOST_MSRS = 32, 1 << 12


class Told(NamedTuple):
    """``version`` of the snapshot, its first number; ``size`` in bytes of memory; registers of each vCPU."""

    x86: bool
    version: int
    size: int
    vcpus: list[dict[str, int]]


def told(state: Image) -> Told:
    """What a state tells. Raises ``IoError`` for one that lies, ``DriverUnavailableError`` for unknown versions."""
    if state.size > _LARGEST_STATE:
        raise state.refused(f"the state of a Firecracker machine of {state.size} bytes", "name its memory as raw")
    content = state.read(0, state.size, "the state")
    packed = content[2:3] == b"\0"
    version, number = _head(content, packed)
    if number is None or (int(version) >= _FIRST_PACKED) != packed:
        raise state.damaged("it has no version, or another one than it looks like, or ends there")
    if int(version) > _LAST:
        raise state.refused(f"a Firecracker snapshot of version {version}", "name its memory as raw")
    if not 0 < number * _MIB < 1 << (PHYSICAL_BITS - 1):
        raise state.damaged(f"the machine had {number:#x} MiB of memory")
    x86 = content.startswith(_X86, 2 + packed)
    find = _packed_vcpus if packed else _vcpus
    return Told(x86, int(version), number * _MIB, list(find(content)) if x86 else [])


def _head(content: bytes, packed: bool) -> tuple[str, int | None]:
    """The version's first number, and the MiB of memory; ``None`` for what cannot be."""
    start, width = (_MAGIC_SIZE + 1, 1) if packed else (_MAGIC_SIZE, 8)
    length = int.from_bytes(content[start : start + width], "little")
    start += width
    version = re.fullmatch(rb"(\d{1,4})\.\d{1,4}\.\d{1,4}", content[start : start + min(length, 64)])
    start += length
    size = 8
    if packed and content[start : start + 1]:
        size, start = _PACKINGS.get(content[start], 1 << 30), start + 1
    if version is None or start + size > len(content):
        return "0", None
    return version[1].decode(), int.from_bytes(content[start : start + size], "little")


def _vcpus(content: bytes) -> Iterator[dict[str, int]]:
    """The registers of each vCPU. What a guest can write (XSAVE) is skipped, as it may look like another one."""
    position, mark = 0, struct.pack("<Q", SIZE_REGS)
    for _ in range(_MOST_VCPUS):
        found = content.find(mark, position)
        while found >= 0 and not _is_row(content, found - _ANCHOR):
            found = content.find(mark, found + 1)
        if found < 0:
            return
        begin = found - _ANCHOR
        yield _registers(content, begin)
        position = _behind_xsave(content, begin + _ROW)


def _behind_xsave(content: bytes, position: int) -> int:
    long = int.from_bytes(content[position : position + 8], "little") == _LONG_XSAVE
    position += 8 + (_LONG_XSAVE if long else _XSAVE)
    return position + 8 + 4 * int.from_bytes(content[position : position + 8], "little") if long else position


def _is_row(content: bytes, begin: int) -> bool:
    """Whether all structures of a vCPU are there, each behind its size."""
    if begin < 0 or begin + _ROW > len(content):
        return False
    for _, size in _SIZES:
        if int.from_bytes(content[begin : begin + 8], "little") != size:
            return False
        begin += 8 + size
    return True


def _registers(content: bytes, begin: int) -> dict[str, int]:
    values = kvmstate.specific(dict(_msrs(content, begin)))
    parts: dict[str, bytes] = {}
    for name, size in _SIZES:
        parts[name] = content[begin + 8 : begin + 8 + size]
        begin += 8 + size
    debug = _DEBUG.unpack_from(parts["debug"])
    values |= zip(("dr0", "dr1", "dr2", "dr3", "dr6", "dr7"), debug, strict=True)
    return (
        values | kvmstate.general(parts["regs"]) | kvmstate.special(parts["sregs"]) | kvmstate.extended(parts["xcrs"])
    )


def _msrs(content: bytes, end: int) -> Iterator[tuple[int, int]]:
    """Index and value of those that end there: lists of entries, each behind the size of a head, it, and a count."""
    entries: list[tuple[int, int]] = []
    while len(entries) < _MOST_MSRS and end >= _MSR.size:
        size, index, value = _MSR.unpack_from(content, end - _MSR.size)
        end -= _MSR.size
        if size == _MSR.size - 8:
            entries.append((index, value))
        elif size == _HEAD and value == len(entries) > 0:
            yield from entries
            entries = []
        else:
            return


def _packed_vcpus(content: bytes) -> Iterator[dict[str, int]]:
    """The registers of each vCPU: all ``kvm_regs`` behind their sizes, then all ``kvm_sregs`` behind theirs.

    The first that look so are theirs: what a guest can write comes later.
    """
    for count in range(1, _MOST_VCPUS + 1):
        before = _small_sizes(SIZE_REGS, count) + b"\0"
        between = _small_sizes(255, count) + _large_sizes(SIZE_SREGS, count) + b"\0"
        place = content.find(between)
        while place >= 0:
            regs, sregs = place - SIZE_REGS * count, place + len(between)
            if regs >= len(before) and content.endswith(before, 0, regs) and sregs + SIZE_SREGS * count <= len(content):
                for vcpu in range(count):
                    general = kvmstate.general(content[regs + SIZE_REGS * vcpu :][:SIZE_REGS])
                    yield general | kvmstate.special(content[sregs + SIZE_SREGS * vcpu :][:SIZE_SREGS])
                return
            place = content.find(between, place + 1)


def _small_sizes(size: int, count: int) -> bytes:
    """The same size so often, each a byte; from six on what it is, and bits of the differences from that."""
    if count > 5:
        return bytes([9, size]) + bytes(-(-count // 8))
    return bytes([0] if count > 2 else []) + bytes([size]) * count


def _large_sizes(size: int, count: int) -> bytes:
    """The same for sizes of two bytes."""
    if count > 5:
        return b"\x05" + size.to_bytes(8, "little") + b"\x0a" + bytes(-(-count // 8))
    return b"\x04" + size.to_bytes(2, "little") * count
