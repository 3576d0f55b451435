# SPDX-License-Identifier: Apache-2.0
"""What the benchmark makes of figures: limits, whether they hold, and what lies within noise."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "c_tests" / "bench"


@pytest.fixture
def promises(results: ModuleType) -> ModuleType:
    """The module that judges."""
    return importlib.import_module("promises")


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that holds what was measured."""
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("results")


def test_the_limit_for_private_memory_is_the_cheaper_call(results: ModuleType) -> None:
    found = results.Results()
    lines = [("pread /proc/PID/mem", 8, 100), ("process_vm_readv", 8, 90), ("ours", 8, 99)]
    found.add("private", [["cell", name, "8 B hot", str(least), str(middle)] for name, least, middle in lines])
    assert found.limit("private", "8 B hot") == ("process_vm_readv", (8, 90))
    assert found.ratio("private", "ours", "8 B hot") == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("ours", "memcpy", "holds"), [(1.9, 2.0, True), (1.8, 2.0, False), (1.5, 1.5, False), (1.2, 1.5, False)]
)
def test_a_missed_gain_is_a_no_whatever_memcpy_reaches(
    results: ModuleType, promises: ModuleType, ours: float, memcpy: float, holds: bool
) -> None:
    found = results.Results()
    found.add("shared", [["number", "gain ours", str(ours)], ["number", "gain memcpy", str(memcpy)]])
    claim = next(claim for claim in promises.claims(found) if claim.text.startswith("two threads"))
    assert claim.holds is holds


def test_the_limit_for_a_word_of_shared_memory_is_a_load(results: ModuleType) -> None:
    found = results.Results()
    lines = [("memcpy", 4), ("a load of 8 bytes", 2), ("ours", 3)]
    found.add("shared", [["cell", name, "8 B hot", str(middle), str(middle)] for name, middle in lines])
    assert found.ratio("shared", "ours", "8 B hot") == pytest.approx(1.5)


def test_64_kib_of_private_memory_are_compared_with_one_process_vm_readv(results: ModuleType) -> None:
    found = results.Results()
    lines = [("pread /proc/PID/mem", 2), ("process_vm_readv", 4), ("ours", 4)]
    found.add("private", [["cell", name, "64 KiB", str(middle), str(middle)] for name, middle in lines])
    assert found.ratio("private", "ours", "64 KiB") == 1


def claim(promises: ModuleType, row: str, **pair: float) -> Any:
    """What is said of a pair of the table's row."""
    results = importlib.import_module("results")
    found = results.Results()
    values = {
        "ours": 800,
        "partner": 400,
        "low": 1.9,
        "middle": 2,
        "high": 2.1,
        "our_least": 2,
        "partner_least": 1,
        **pair,
    }
    known = {one.text: one.pair for one in (*promises.KEPT, *promises.FRAMES, *promises.PYTHON, *promises.START)}
    found.pairs[known[row]] = results.Pair(**values)
    return next(one for one in promises.claims(found) if one.text == row)


@pytest.mark.parametrize(("partner", "holds"), [(400, True), (401, False), (40, True), (4000, False)])
def test_what_a_driver_may_add_to_a_foreign_call_is_a_ratio_and_a_fifth_of_a_microsecond(
    promises: ModuleType, partner: float, holds: bool
) -> None:
    assert claim(promises, "kvm, from C: 8 B", partner=partner).holds is holds


@pytest.mark.parametrize(
    ("low", "middle", "high", "holds", "noisy"),
    [(6, 7, 7.9, True, False), (6, 7, 8.1, True, True), (7.9, 8.2, 9, False, True), (8.1, 8.2, 9, False, False)],
)
def test_a_figure_whose_limit_lies_in_its_spread_says_so(
    promises: ModuleType, low: float, middle: float, high: float, holds: bool, noisy: bool
) -> None:
    found = claim(promises, "fake, from C: 8 B", low=low, middle=middle, high=high)
    assert (found.holds, "within noise" in found.note) == (holds, noisy)


def test_a_column_whose_limit_lies_in_its_spread_says_so(results: ModuleType, promises: ModuleType) -> None:
    for high, noisy in ((1.04, False), (1.06, True)):
        found = results.Results()
        cells = [["cell", name, "64 KiB", "100", "100"] for name in ("memcpy", "ours")]
        found.add("shared", [*cells, ["spread", "memcpy", "64 KiB", "0.99", str(high)]])
        row = next(one for one in promises.claims(found) if one.text == "shared RAM: 64 KiB")
        assert (row.holds, "within noise" in row.note) == (True, noisy)


@pytest.mark.parametrize(("low", "noisy"), [(1.8, True), (1.95, False)])
def test_a_gain_near_its_limit_says_so(results: ModuleType, promises: ModuleType, low: float, noisy: bool) -> None:
    found = results.Results()
    gains = {"gain ours": 1.96, "gain ours low": low, "gain ours high": 2.0, "gain memcpy": 2.0}
    found.add("shared", [["number", name, str(value)] for name, value in gains.items()])
    row = next(one for one in promises.claims(found) if one.text.startswith("two threads"))
    assert (row.holds, row.note) == (True, "memcpy: 2.00 x" + noisy * "; within noise")


def test_a_busy_machine_is_told_by_what_the_partner_takes(promises: ModuleType) -> None:
    row = "virtualbox, from C: 8 B"
    notes = [claim(promises, row, partner=300, partner_least=least).note for least in (99, 101)]
    assert ["the machine was busy" in note for note in notes] == [True, False]


def test_two_threads_are_to_reach_a_part_of_what_the_foreign_calls_reach(promises: ModuleType) -> None:
    row = "kvm, two threads on two machines, 4 KiB reads"
    assert [claim(promises, row, middle=middle).holds for middle in (0.89, 0.9)] == [False, True]


def test_latency_is_a_time_and_a_start_the_quickest_of_its_runs(promises: ModuleType) -> None:
    row = "fake, 8 B beside another context's 16 MiB: a C program"
    assert [claim(promises, row, ours=2 * 1e3 * at, partner=1e3, middle=2 * at).holds for at in (149, 151)] == [
        True,
        False,
    ]
    row = "process start to the first byte of an image"
    assert [claim(promises, row, our_least=at, middle=5).holds for at in (3.9, 4.1)] == [True, False]
