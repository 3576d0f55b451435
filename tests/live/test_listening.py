# SPDX-License-Identifier: Apache-2.0
"""How fast events of a stock QEMU are, beside a bare loop at its stub that takes turns with the library: on a machine
that does other things as well the limits are lower than those of ``make bench``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "c_tests" / "bench"

LIMITS = {"changes of CR3, from C": 1 / 0.25, "changes of CR3, from Python": 1 / 0.12, "breakpoint": 1 / 0.5}
"""The most that an event may take, as a multiple of the bare loop's."""

RUN = """
import statistics, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import programs, libmicrovmi_py, listening
built = programs.Programs(Path(sys.argv[2]), Path(sys.argv[3]))
paths = tuple(str(built.path(name)) for name in ("stub_loop", "listen"))
listening.TURNS, listening.FEW_TURNS = 600, 60
samples = listening.measured(libmicrovmi_py, Path(sys.argv[2]), paths, sys.argv[4], 0)
print(*map(statistics.median, samples))
"""


@pytest.mark.alone
@pytest.mark.parametrize("name", LIMITS)
def test_an_event_takes_not_many_times_what_a_bare_loop_takes(name: str, library_path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN, str(BENCH.parents[1]), str(tmp_path), str(library_path), name]
    ended = subprocess.run(command, cwd=BENCH, capture_output=True, text=True, timeout=400, check=False)
    assert ended.stderr == ""
    ours, partner = map(float, ended.stdout.split())  # of each the middle one: the quickest is a matter of luck
    assert ours <= LIMITS[name] * partner
