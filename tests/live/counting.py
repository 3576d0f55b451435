# SPDX-License-Identifier: Apache-2.0
"""A guest that counts in two pages far from each other, in one and then in the other, as fast as it can.

At every instant the two numbers are equal, or the first is one ahead: what holds other two is of several instants.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from libmicrovmi_py import Microvmi

from .tiny import GO, Tiny, tiny, wait_for

FIRST = 0x0010_0000
"""Guest-physical address of the first number, of 4 bytes; it comes round."""

LONG = bool(os.environ.get("MICROVMI_LONG"))
"""Whether a thousand snapshots are taken instead of as many as there is time for (``make test-long``)."""

SNAPSHOTS = 1000

MIB = 512
"""Of RAM, unless another size is asked for."""

_CODE, _WAIT = 0xF0000, 11
"""Where the firmware is, and how long its wait before this code is."""


def counts(second: int) -> bytes:
    """For :func:`tiny.tiny`: go to 32-bit mode, count at ``FIRST`` and at address ``second``."""
    start, head, body = _CODE + _WAIT, 24, 24
    table = start + head + body
    real = b"\xfa\x2e\x0f\x01\x16" + struct.pack("<H", (table + 24) & 0xFFFF)  # cli; lgdt cs:[gdtr]
    real += b"\x0f\x20\xc0\x0c\x01\x0f\x22\xc0"  # mov eax, cr0; or al, 1; mov cr0, eax
    real += b"\x66\xea" + struct.pack("<IH", start + head, 8)  # jmp 8:flat
    flat = b"\xb0\x10\x8e\xd8" + b"\xbf" + struct.pack("<I", FIRST) + b"\xbe" + struct.pack("<I", second)
    flat += b"\x31\xc0\x40\x89\x07\x89\x06\xeb\xf9"  # xor eax, eax; next: inc eax; mov [edi], eax; mov [esi], eax; jmp
    gdt = struct.pack("<3Q", 0, 0x00CF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF) + struct.pack("<HI", 23, table)
    return real.ljust(head, b"\x90") + flat.ljust(body, b"\x90") + gdt


def second_of(mib: int) -> int:
    """Where the second number is in a guest of that much RAM: in its last page below 3 GiB."""
    return (min(mib, 3072) << 20) - 0x1000


@contextmanager
def counting(folder: Path, mib: int = MIB, options: tuple[str, ...] = ()) -> Iterator[Tiny]:
    """Start one, and wait until it counts."""
    with tiny(folder, counts(second_of(mib)), ("-m", f"{mib}M", *options), debugger=False) as guest:
        with Microvmi.open(guest.uri) as vm:
            vm.write_physical(GO, b"\1")
            wait_for(lambda: _number(vm.read_physical, second_of(mib)) > 1000, "a guest that counts")
        yield guest


def numbers(read: Callable[[int, int], bytes], mib: int = MIB) -> tuple[int, int]:
    """The two numbers, by a function that reads at an address."""
    return _number(read, FIRST), _number(read, second_of(mib))


def is_torn(first: int, second: int) -> bool:
    """Whether two numbers are not of one instant."""
    return (first - second) % (1 << 32) > 1


def torn_dumps(read: Callable[[int, int], bytes], mib: int = MIB, times: int = 5) -> int:
    """How many of so many plain dumps, each read from the first page to the last, are torn: what snapshots are for."""
    return sum(is_torn(*numbers(_dump(read, mib), mib)) for _ in range(times))


def _dump(read: Callable[[int, int], bytes], mib: int) -> Callable[[int, int], bytes]:
    content = b"".join(read(start << 20, min(16, mib - start) << 20) for start in range(0, mib, 16))
    return lambda address, size: content[address : address + size]


def _number(read: Callable[[int, int], bytes], address: int) -> int:
    return int.from_bytes(read(address, 4), "little")
