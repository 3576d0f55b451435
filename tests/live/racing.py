# SPDX-License-Identifier: Apache-2.0
"""A guest of 512 bytes whose two vCPUs write the same variable as often as they are told to, and count that."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from libmicrovmi_py import Microvmi

from .guest import Config, Guest

VARIABLE = 0x9000
"""What both write, 4 bytes, guest-virtual and guest-physical."""

COUNTS = (0x8010, 0x8014)
"""How often each vCPU did, 4 bytes."""

ORDERS = (0x8020, 0x8024)
"""How often each has yet to, 4 bytes: written from outside."""

AWAKE = 0x8008
"""1 once the second vCPU is there, 4 bytes."""

WRITES = (0x7C53, 0x7C77)
"""The instruction of each vCPU that writes the variable."""

LENGTH = 6
"""Bytes of each."""

SECONDS = 30.0

_CODE = bytes.fromhex(
    "fa31c08ed8"  # cli; ds = 0
    "660f0116a07c0f20c00c010f22c0bb08008ee324fe0f22c0"  # fs reaches 4 GiB, by a moment of protected mode
    "c6060070eac7060170657cc70603700000"  # at 0x7000, where the second vCPU begins: a jump to SECOND
    "66bb0003e0fe646766c70300450c00b9ffffe2fe646766c70307460c00"  # INIT and SIPI to it
    "66833e20800074f8"  # FIRST: until ORDERS[0] is not 0
    "663eff060090"  # inc dword [VARIABLE]
    "66ff06108066ff0e2080ebe6"  # COUNTS[0] += 1; ORDERS[0] -= 1; FIRST
    "fa31c08ed866ff060880"  # SECOND: cli; ds = 0; AWAKE += 1
    "66833e24800074f8663eff06009066ff06148066ff0e2480ebe6"  # the same
    "8db400008d74000000000000000000ffff00000092cf000f00907c0000"  # the table of that moment
)


_WAKES, _RESETS = bytes.fromhex("c70307460c00"), bytes.fromhex("c70300450c00")
"""The orders to the second vCPU to begin, and to wait for that."""


@contextmanager
def racing(folder: Path, *, alone: bool = False) -> Iterator[Guest]:
    """The guest, once both vCPUs are there; ``alone``: the second one never begins."""
    path = folder / "race"
    code = _CODE.replace(_WAKES, _RESETS) if alone else _CODE
    path.write_bytes((code.ljust(510, b"\0") + b"\x55\xaa").ljust(1 << 20, b"\0"))
    with Guest(Config("private", 64), options=["-drive", f"file={path},format=raw,if=ide"]) as guest:
        guest.monitor.execute("cont")
        with Microvmi.open(guest.uri) as machine:
            wait_for(lambda: machine.read_physical(WRITES[0] - 8, 4) == _CODE[0x4B:0x4F])
            wait_for(lambda: alone or number(machine, AWAKE) == 1)
            order(machine, 1)
            wait_for(lambda: number(machine, COUNTS[0]) == 1)
        yield guest


def number(machine: Microvmi, address: int) -> int:
    """4 bytes of the guest."""
    return int.from_bytes(machine.read_physical(address, 4), "little")


def order(machine: Microvmi, *turns: int) -> None:
    """Have each vCPU write the variable so often from now on; nothing is counted yet."""
    machine.pause()
    for place in (VARIABLE, *COUNTS):
        machine.write_physical(place, bytes(4))
    for place, count in zip(ORDERS, turns, strict=False):
        machine.write_physical(place, count.to_bytes(4, "little"))
    machine.resume()


def wait_for(condition: Callable[[], bool]) -> None:
    """Until that is so."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
