# SPDX-License-Identifier: Apache-2.0
"""Changed device states: whatever is in them, registers that fit come out of them, none, or an error of their kind.

Every file is made from its number alone, so that one that fails can be made again.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from drivers.qemu.device_states import aarch64_state, aarch64_vcpu, state, vcpu
from fuzz.mutator import SCALE, Mutator

from libmicrovmi_py.arch.state import check_values
from libmicrovmi_py.drivers.qemu.vcpus import Vcpus, aarch64_of, x86_of
from libmicrovmi_py.errors import IoError
from libmicrovmi_py.model import Architecture

SECONDS = 2.0
"""So long a file of some KiB may take."""

Reader = Callable[[bytes, Vcpus], dict[int, dict[str, int]]]
NARROW = {name: value & 0xFFFFFFFF for name, value in vcpu(0).items()}
FILES: dict[str, tuple[Reader, Architecture, bytes]] = {
    "x86_64": (x86_of, Architecture.X86, state({0: vcpu(0), 1: vcpu(1)})),
    "i386": (x86_of, Architecture.X86, state({0: NARROW, 1: NARROW}, wide=False)),
    "aarch64": (aarch64_of, Architecture.AARCH64, aarch64_state({0: aarch64_vcpu(), 1: aarch64_vcpu()})),
}
WORDS = (0, 1, 12, 22, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
HEADERS = (b"\x03cpu\0\0\0\0\0\0\0\x0c", b"\x04\0\0\0\1\x03cpu\0\0\0\1\0\0\0\x16", b"\x04apic", b"QEVM\0\0\0\3")


def changed(target: str, number: int) -> bytes:
    """File ``number`` made of that of the target."""
    mutator, data = Mutator(f"device state {target}", number), bytearray(FILES[target][2])
    for _ in range(mutator.choice((1, 1, 2, 5, 20))):
        if not data:
            break
        place = mutator.randrange(len(data))
        what = mutator.randrange(5)
        if what == 0:
            data[place : place + 4] = mutator.choice(WORDS).to_bytes(4, "big")
        elif what == 1:
            data[place] = mutator.randrange(256)
        elif what == 2:
            data[place:place] = mutator.choice(HEADERS)
        elif what == 3:
            del data[place : place + mutator.choice((1, 4, 300))]
        else:
            del data[mutator.randrange(len(data) // 2, len(data)) :]
    return bytes(data)


@pytest.mark.parametrize("target", FILES)
def test_changed_states_are_told_or_not_known(target: str) -> None:
    reader, architecture, _ = FILES[target]
    vcpus = Vcpus([{"cpu-index": index, "target": target} for index in range(2)])
    for number in range(400 * SCALE):
        data, started = changed(target, number), time.monotonic()
        try:
            found = reader(data, vcpus)
        except IoError:
            found = {}
        assert time.monotonic() - started < SECONDS, number
        assert set(found) <= {0, 1}, number
        for values in found.values():
            check_values(architecture, values)


def test_a_state_full_of_headers_takes_no_time() -> None:
    vcpus = Vcpus([{"cpu-index": 0, "target": "x86_64"}])
    started = time.monotonic()
    for header in HEADERS:
        with pytest.raises(IoError):
            x86_of(b"QEVM\0\0\0\3" + header * 100_000, vcpus)
    assert time.monotonic() - started < SECONDS
