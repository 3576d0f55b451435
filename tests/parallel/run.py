# SPDX-License-Identifier: Apache-2.0
"""Runs the tests in several processes, as ``make test JOBS=2`` does: ``run.py JOBS [argument of pytest...]``.

Tests that measure time, and are marked ``alone``, run in one process when the others have ended.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "tests"
PASSED, NO_TESTS = 0, 5
"""Exit codes of pytest; a process that came too late has no tests."""

_Worker = tuple[str, "subprocess.Popen[bytes]"]


def start(folder: Path, name: str, stage: str, arguments: Sequence[str]) -> _Worker:
    """A process that takes its part of the tests; what it prints is ``NAME.log``."""
    environment = {**os.environ, "MICROVMI_PARALLEL": f"{folder}:{name}:{stage}"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", *arguments]
    with (folder / f"{name}.log").open("wb") as log:
        return name, subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


def run_all(folder: Path, jobs: int, arguments: Sequence[str]) -> dict[str, int]:
    """The exit code of each process. Those of the first stage run at once."""
    codes = {}
    for stage, count in (("together", jobs), ("alone", 1)):
        workers = [start(folder, f"{stage}-{number}", stage, arguments) for number in range(1, count + 1)]
        try:
            codes.update(ended(workers, folder / f"taken-{stage}"))
        finally:
            for _, process in workers:
                process.terminate()
    return codes


def ended(workers: Sequence[_Worker], taken: Path) -> dict[str, int]:
    """Wait for the processes, and print what they begin: the last lines tell where a run came to no end."""
    began, shown, left = time.monotonic(), 0, True
    while left:
        time.sleep(0.1)
        left = any(process.poll() is None for _, process in workers)
        names = taken.read_text().splitlines() if taken.exists() else []
        for name in names[shown:]:
            print(f"{time.monotonic() - began:5.0f} s  {name}", flush=True)
        shown = len(names)
    return {name: process.wait() for name, process in workers}


def outcome_of(folder: Path, name: str) -> dict[str, Any]:
    """What a process said at its end; nothing, if it crashed."""
    path = folder / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return {"counts": {}, "skipped": {}, "took": {}, **found}


def problem_of(folder: Path, name: str) -> str:
    """What pytest has to say of failures; of a crash all that was printed last."""
    lines = (folder / f"{name}.log").read_text(errors="replace").splitlines()
    heads = ("= FAILURES =", "= ERRORS =")
    starts = [at for at, line in enumerate(lines) if any(head in line for head in heads)]
    return "\n".join(lines[starts[0] :] if starts else lines[-40:])


def report(folder: Path, codes: dict[str, int], took: float) -> bool:
    """Print what failed, why tests were skipped, and the sum; whether all is well."""
    counts: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    bad = [name for name, code in codes.items() if code not in (PASSED, NO_TESTS)]
    for name in codes:
        outcome = outcome_of(folder, name)
        counts.update(outcome["counts"])
        skipped.update(outcome["skipped"])
    for name in bad:
        print(f"\n{name} ended with {codes[name]}, its output is {folder / name}.log\n{problem_of(folder, name)}")
    for reason, number in skipped.items():
        print(f"SKIPPED [{number}] {reason.removeprefix('Skipped: ')}")
    words = ", ".join(f"{number} {what}" for what, number in counts.items())
    print(f"{words or 'no tests ran'} in {took:.0f} s by {len(codes) - 1} processes")
    return not bad and counts["passed"] > 0


def learn(folder: Path, names: Iterable[str]) -> dict[str, float]:
    """Keep how long each group of tests took, for the next run to begin with those that take long; returns it."""
    times = folder.parent / "seconds.json"
    seconds: dict[str, float] = json.loads(times.read_text()) if times.exists() else {}
    for name in names:
        if not name.startswith("alone"):  # what runs alone is but a part of its group
            seconds.update(outcome_of(folder, name)["took"])
    times.write_text(json.dumps(seconds, indent=1))
    return seconds


def main() -> int:
    """0 if tests ran and none failed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the processes end with this one
    jobs, arguments, folder = int(sys.argv[1]), sys.argv[2:], FOLDER / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    learn(folder, [])
    print(f"{jobs} processes run the tests; what they print is in {folder.relative_to(ROOT)}", flush=True)
    started = time.monotonic()
    codes = run_all(folder, jobs, arguments)
    good = report(folder, codes, time.monotonic() - started)
    learn(folder, codes)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
