# SPDX-License-Identifier: Apache-2.0
"""Plants every bug of the lists, one at a time, and says which of them no test notices. ``make mutants`` runs it.

``MUTANTS`` names lists, separated by commas; ``JOBS`` is how many copies of the tree work at once.
"""

from __future__ import annotations

import os
import queue
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mutants.lists import ROOT, all_lists, misfit
from mutants.mutant import Mutant
from mutants.tree import DoesNotBuildError, Tree

WANTED = 95.0
"""Percent."""

FIRST_LIMIT = 300.0
"""Seconds that tests may take on the tree as it is; ten times what they took, and at least 30 s, with a bug planted."""

CAUGHT, SURVIVED, NO_FIT, BROKEN, EXPLAINED = "caught", "survived", "does not fit", "tests broken", "explained"
OUTCOMES = (CAUGHT, SURVIVED, NO_FIT, BROKEN, EXPLAINED)

_Item = TypeVar("_Item")
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant, and in a line why or how."""

    mutant: Mutant
    outcome: str
    detail: str = ""

    def line(self) -> str:
        """One line, as ``file: old -> new``."""
        old, new = (" ".join(text.split())[:60] for text in (self.mutant.old, self.mutant.new))
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.outcome}{detail}: {self.mutant.file}: {old} -> {new}: {self.mutant.does}"


class Progress:
    """One line that changes on a terminal, a line each elsewhere."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._lock = total, 0, threading.Lock()

    def tell(self, text: str) -> None:
        """Something is done."""
        with self._lock:
            self._done += 1
            line = f"[{self._done}/{self._total}] {text}"
            if sys.stdout.isatty():
                width = shutil.get_terminal_size().columns - 1
                print(f"\r\x1b[K{line[:width]}", end="" if self._done < self._total else "\r\x1b[K", flush=True)
            else:
                print(line, flush=True)


class Trees:
    """Copies of the tree, each used by one thread at a time."""

    def __init__(self, folder: Path, count: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        first = Tree.copied(ROOT, folder / "1")
        self._free: queue.SimpleQueue[Tree] = queue.SimpleQueue()
        for tree in (first, *(first.twin(folder / str(number)) for number in range(2, count + 1))):
            self._free.put(tree)
        self._count = count

    def each(self, items: Sequence[_Item], work: Callable[[Tree, _Item], _Value]) -> list[_Value]:
        """``work`` of every item, in the order of the items."""

        def one(item: _Item) -> _Value:
            tree = self._free.get()
            try:
                return work(tree, item)
            finally:
                self._free.put(tree)

        with ThreadPoolExecutor(self._count) as pool:
            return list(pool.map(one, items))


def time_of(trees: Trees, sets: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], float | str]:
    """Seconds that each set of tests takes on the tree as it is, or why it cannot catch anything."""
    progress = Progress(len(sets))

    def clean(tree: Tree, tests: tuple[str, ...]) -> float | str:
        ended = tree.test(tests, FIRST_LIMIT)
        last = ([*ended.output.strip().splitlines()] or ["no output"])[-1]
        progress.tell(f"without a bug: {' '.join(tests)}: {last}")
        return ended.took if ended.passed else f"without a bug: {last}"

    return dict(zip(sets, trees.each(sets, clean), strict=True))


def judge(tree: Tree, mutant: Mutant, usual: float | str) -> Verdict:
    """Plant one and run its tests; ``usual`` is what they do without it."""
    if isinstance(usual, str):
        return Verdict(mutant, BROKEN, usual)
    try:
        tree.plant(mutant)
    except DoesNotBuildError as err:
        return Verdict(mutant, NO_FIT, f"does not build: {err}")
    ended = tree.test(mutant.tests, max(30.0, 10 * usual))
    if ended.code is None:
        return Verdict(mutant, CAUGHT, "tests hang")
    if ended.code < 0:
        return Verdict(mutant, CAUGHT, f"tests end by signal {-ended.code}")
    if ended.code == 1:
        return Verdict(mutant, CAUGHT)
    if ended.passed:
        return Verdict(mutant, SURVIVED)
    return Verdict(mutant, BROKEN, ([*ended.output.strip().splitlines()] or ["no output"])[-1])


def run(mutants: Iterable[Mutant], jobs: int) -> list[Verdict]:
    """The verdict on every mutant."""
    verdicts, fitting = [], []
    for mutant in mutants:
        if reason := misfit(mutant):
            verdicts.append(Verdict(mutant, NO_FIT, reason))
        elif mutant.why:
            verdicts.append(Verdict(mutant, EXPLAINED, mutant.why))
        else:
            fitting.append(mutant)
    if not fitting:
        return verdicts
    fitting.sort(key=lambda mutant: (mutant.file.endswith(".py"), mutant.file))
    trees = Trees(ROOT / "build" / "mutants", min(jobs, len(fitting)))
    usual = time_of(trees, sorted({mutant.tests for mutant in fitting}))
    progress = Progress(len(fitting))

    def work(tree: Tree, mutant: Mutant) -> Verdict:
        verdict = judge(tree, mutant, usual[mutant.tests])
        progress.tell(verdict.line())
        return verdict

    return [*verdicts, *trees.each(fitting, work)]


def report(verdicts: Sequence[Verdict]) -> bool:
    """Print the table, what was not caught, and the rate; whether that is good enough."""
    rows: dict[str, Counter[str]] = {}
    for verdict in verdicts:
        rows.setdefault(verdict.mutant.file, Counter())[verdict.outcome] += 1
    width = max(map(len, rows), default=4)
    print(f"\n{'file':{width}}  " + "  ".join(OUTCOMES))
    for name, counts in sorted(rows.items()):
        print(f"{name:{width}}  " + "  ".join(f"{counts[outcome] or '-':>{len(outcome)}}" for outcome in OUTCOMES))
    print()
    for verdict in verdicts:
        if verdict.outcome != CAUGHT:
            print(verdict.line())
    total = Counter(verdict.outcome for verdict in verdicts)
    planted = total[CAUGHT] + total[SURVIVED]
    rate = 100 * total[CAUGHT] / planted if planted else 0.0
    print(f"{total[CAUGHT]} of {planted} caught, {rate:.1f} %; {total[EXPLAINED]} explained")
    return rate >= WANTED and not total[NO_FIT] and not total[BROKEN]


def main() -> int:
    """0 if at least 95 % were caught and every list fits the tree."""
    lists = all_lists()
    wanted = [name for name in os.environ.get("MUTANTS", "").split(",") if name] or [*lists]
    if unknown := [name for name in wanted if name not in lists]:
        print(f"there is no list {unknown[0]}: {', '.join(lists) or 'there are none'}", file=sys.stderr)
        return 2
    mutants = dict.fromkeys(mutant for name in wanted for mutant in lists[name])
    return 0 if report(run(mutants, max(1, int(os.environ.get("JOBS") or 2)))) else 1


if __name__ == "__main__":
    sys.exit(main())
