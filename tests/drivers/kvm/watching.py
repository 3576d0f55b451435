# SPDX-License-Identifier: Apache-2.0
"""What tests of the KVM driver look at and wait for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from drivers.kvm.simulator import Simulator

from libmicrovmi_py import Microvmi
from libmicrovmi_py.events import Event


@contextmanager
def lasting(least: float, most: float) -> Iterator[None]:
    """Fail unless the block takes so many seconds."""
    started = time.monotonic()
    yield
    assert least <= time.monotonic() - started <= most


def held() -> tuple[int, int]:
    """How many descriptors and threads this process has."""
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def no_more_than(before: tuple[int, int]) -> bool:
    """Whether this process has what it had, or less."""
    return all(now <= then for now, then in zip(held(), before, strict=True))


def heard(machine: Microvmi) -> Event:
    """The next event, which has to come."""
    event = machine.listen(5)
    assert event is not None
    return event


def stopped(simulator: Simulator) -> list[bool]:
    """Which vCPUs wait for an answer."""
    return [vcpu.stopped.is_set() for vcpu in simulator.vcpus]


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do."""
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)
