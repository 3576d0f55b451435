# SPDX-License-Identifier: Apache-2.0
"""Two ways to do something, taken in turns in one Python process, and printed as the C programs print theirs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

FEWEST_ROUNDS = 5


class Samples(NamedTuple):
    """By round: what ours took, and what its partner took, in nanoseconds."""

    ours: list[float]
    partner: list[float]


def timed(work: Callable[[], object]) -> float:
    """Nanoseconds of one call."""
    before = time.perf_counter_ns()
    work()
    return float(time.perf_counter_ns() - before)


def take_turns(ours: Callable[[], float], partner: Callable[[], float], seconds: float) -> Samples:
    """Let both measure themselves again and again, another one first in each round."""
    samples = Samples([], [])
    stop = time.monotonic() + seconds
    while time.monotonic() < stop or len(samples.ours) < FEWEST_ROUNDS:
        both = [(samples.ours, ours), (samples.partner, partner)]
        for values, measure in both if len(samples.ours) % 2 else reversed(both):
            values.append(measure())
    return samples


def print_pair(name: str, samples: Samples, calls: int = 1) -> None:
    """Print what ``print_pair()`` of bench.h does; each sample was of so many calls."""
    print("pair", name, *_described(samples, calls), sep="\t")


def _described(samples: Samples, calls: int) -> Sequence[str]:
    rounds = [ours / partner for ours, partner in zip(samples.ours, samples.partner, strict=True)]
    low, middle, high = statistics.quantiles(rounds, n=4, method="inclusive")
    medians = (statistics.median(values) / calls for values in samples)
    leasts = (min(values) / calls for values in samples)
    ratios = [f"{value:.5f}" for value in (low, middle, high)]
    return [*(f"{value:.3f}" for value in medians), *ratios, *(f"{value:.3f}" for value in leasts)]
