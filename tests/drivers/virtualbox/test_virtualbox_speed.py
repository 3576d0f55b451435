# SPDX-License-Identifier: Apache-2.0
"""What a read through the C library costs beside the same read by libFDP itself."""

from __future__ import annotations

import ctypes
import random
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from drivers.virtualbox.simulator import Simulator, addresses, simulated

SIZE = 1 << 20
RAM = 0x2000000


@pytest.mark.alone
def test_large_reads_cost_little_more_than_those_of_libfdp(
    library: Path, library_path: Path, stubs: ModuleType
) -> None:
    """The promise is 1.1, of medians on a quiet machine; a busy one's is the best of three, of the fastest of each."""
    lib = stubs.load(library_path)
    with simulated(library, {0: RAM}) as vm:
        context = lib.microvmi_open(vm.uri.encode(), None)
        assert context
        ours, theirs = (ctypes.c_uint8 * SIZE)(), (ctypes.c_uint8 * SIZE)()
        reads = [lambda at: lib.microvmi_read_physical(context, at, ours, SIZE, None), direct(vm, theirs)]
        assert any(ratio(reads) < 1.5 for _ in range(3))
        assert reads[0](SIZE)
        assert bytes(ours) == addresses(SIZE, SIZE)
        lib.microvmi_destroy(context)


def ratio(reads: list[Callable[[int], object]]) -> float:
    """The fastest read of the first over that of the second, at random places, in random order."""
    fastest = [float("inf")] * 2
    for _ in range(200):
        for which in random.sample(range(2), 2):
            fastest[which] = min(fastest[which], timed(reads[which], random.randrange(1, 24) * SIZE))
    return fastest[0] / fastest[1]


def direct(vm: Simulator, buffer: ctypes.Array[ctypes.c_uint8]) -> Callable[[int], bool]:
    read, handle = vm.fdp.FDP_ReadPhysicalMemory, vm.handle()
    read.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64]
    read.restype = ctypes.c_bool
    return lambda at: bool(read(handle, buffer, SIZE, at))


def timed(read: Callable[[int], object], address: int) -> float:
    start = time.perf_counter()
    assert read(address)
    return time.perf_counter() - start
