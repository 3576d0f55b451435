# SPDX-License-Identifier: Apache-2.0
"""How much of a machine's memory is kept, and while what."""

from __future__ import annotations

from collections.abc import Callable

from libmicrovmi_py.drivers.base import Driver
from libmicrovmi_py.errors import InvalidArgumentError
from libmicrovmi_py.memory import PhysicalMemory
from libmicrovmi_py.params import Parameters

CACHE_SIZE = 16 << 20
"""Bytes of pages kept of a paused machine unless the parameter ``cache`` says otherwise."""

LARGEST_CACHE = 1 << 40
"""What address space is asked for at the most; memory is taken as pages are kept."""


def cache_size(params: Parameters) -> int:
    """Bytes, by the parameter. Raises ``InvalidArgumentError``."""
    size = params.integer("cache", CACHE_SIZE)
    if not 0 <= size <= LARGEST_CACHE:
        raise InvalidArgumentError(f"cache={size}: not a number of bytes up to {LARGEST_CACHE}")
    return size


def keeper(driver: Driver, physical: PhysicalMemory, size: int) -> Callable[[bool], None]:
    """What is told whether pages may be kept; those of a machine that never changes are kept all the time."""

    def keep(wanted: bool) -> None:
        if not driver.static:
            physical.keep_pages(size if wanted else 0)

    return keep
