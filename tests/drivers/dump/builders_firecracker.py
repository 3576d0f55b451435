# SPDX-License-Identifier: Apache-2.0
"""Writes states of Firecracker: as versions 1.8 to 1.12 with bincode, or as those since 1.15 with bitcode."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from drivers.dump import builders_cloudhypervisor as kvm

X86, ARM = 0x0710_1984_8664_0000, 0x0710_1984_AAAA_0000
DEBUG = (0xD0, 0xD1, 0xD2, 0xD3, 0xFFFF0FF0, 0x400)


def sized(content: bytes) -> bytes:
    """Bytes behind their number."""
    return struct.pack("<Q", len(content)) + content


def row(values: Mapping[str, Any]) -> bytes:
    """The structures of KVM from the debug registers to XCR0."""
    debug = struct.pack("<6Q", *DEBUG).ljust(128, b"\0")
    parts = (debug, bytes(1024), bytes(4), kvm.regs(values), kvm.sregs(values), bytes(64), kvm.xcrs(7))
    return b"".join(sized(part) for part in parts)


def vcpu(values: Mapping[str, Any], *, lists: int = 1, xsave: bytes = b"", more: bytes | None = None) -> bytes:
    """A vCPU: CPUID, lists of MSRs, the structures, XSAVE, and the frequency of the time stamp counter.

    With ``more``, XSAVE is that of Firecracker 1.12 and later, which has so many bytes more.
    """
    cpuid = sized(bytes(8)) + struct.pack("<Q", 3) + sized(bytes(24) + struct.pack("<4I", 16, 0, 0, 0)) * 3
    msrs, each = list(kvm.MSRS.items()), -(-len(kvm.MSRS) // lists)
    parts = [msrs[at : at + each] for at in range(0, len(msrs), each)]
    made = struct.pack("<Q", len(parts))
    for part in parts:
        made += sized(struct.pack("<2I", len(part), 0)) + struct.pack("<Q", len(part))
        made += b"".join(sized(struct.pack("<I4xQ", index, value)) for index, value in part)
    saved = sized(xsave.ljust(4096, b"\0"))
    if more is not None:
        saved = (
            sized(struct.pack("<Q", len(more)) + xsave.ljust(4096, b"\0")) + struct.pack("<Q", len(more) // 4) + more
        )
    return cpuid + made + row(values) + saved + struct.pack("<BI", 1, 2000000)


def state(
    size: int,
    vcpus: Sequence[bytes] = (),
    *,
    magic: int = X86,
    version: str = "3.0.0",
    regions: Sequence[tuple[int, int]] = (),
) -> bytes:
    """The state of a machine of ``size`` bytes of memory, with those regions (address, size)."""
    head = struct.pack("<Q", magic) + sized(version.encode()) + struct.pack("<Q", size >> 20)
    paths = sized(b"/kernel") + b"\0" + b"\1" + sized(b"console=ttyS0")
    machine = struct.pack("<BI", 0, 3) + paths + struct.pack("<I", 0)
    rows = [(start, length, sum(item[1] for item in regions[:index])) for index, (start, length) in enumerate(regions)]
    memory = struct.pack("<Q", len(rows)) + b"".join(struct.pack("<3Q", *item) for item in rows)
    chips = b"".join(sized(bytes(length)) for length in (112, 48, 520, 520, 520)) + struct.pack("<Q", 0)
    devices = bytes(100)
    return head + machine + memory + chips + struct.pack("<Q", len(vcpus)) + b"".join(vcpus) + devices + bytes(8)


def packed_state(
    size: int,
    vcpus: Sequence[Mapping[str, Any]] = (),
    *,
    magic: int = X86,
    version: str = "10.0.0",
    forged: Sequence[Mapping[str, Any]] = (),
) -> bytes:
    """The state of versions since 1.15: the fields of all vCPUs together. ``forged`` is what a guest has in XSAVE."""
    head = b"\0" + struct.pack("<Q", magic) + bytes([len(version)]) + version.encode() + _number(size >> 20)
    return head + b"?" * 300 + _columns(vcpus) + b"?" * 50 + _columns(forged) + bytes(8)


def _columns(vcpus: Sequence[Mapping[str, Any]]) -> bytes:
    """``kvm_regs`` and ``kvm_sregs`` of all, each behind all of their sizes."""
    count = len(vcpus)
    made = _same_bytes(144, count) + b"\0" + b"".join(kvm.regs(values) for values in vcpus)
    made += _same_bytes(255, count)  # larger than a byte has
    if count > 5:
        made += b"\5" + struct.pack("<Q", 312) + b"\x0a" + bytes((count + 7) // 8)
    else:
        made += b"\4" + struct.pack("<H", 312) * count
    return (made + b"\0" + b"".join(kvm.sregs(values) for values in vcpus)) if count else b""


def _same_bytes(value: int, count: int) -> bytes:
    """So many equal bytes: as they are, behind a byte that says so, or (from six on) as differences of one bit."""
    if count <= 2:
        return bytes([value]) * count
    return b"\0" + bytes([value]) * count if count <= 5 else bytes([9, value]) + bytes((count + 7) // 8)


def _number(value: int) -> bytes:
    """A number in as few bytes as it needs, behind a byte that says how many."""
    for code, size in ((6, 1), (4, 2), (2, 4)):
        if value < 1 << 8 * size:
            return bytes([code]) + value.to_bytes(size, "little")
    return b"\0" + value.to_bytes(8, "little")
