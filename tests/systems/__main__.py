# SPDX-License-Identifier: Apache-2.0
"""``make test-systems``: demo and tests in Debian 12, 13 and sid, with their Pythons and QEMUs. docs/testing.md."""

from __future__ import annotations

import os
import subprocess
import sys

from . import results
from .report import Progress, Row, table
from .runs import all_runs
from .settings import ROOT, Settings, SetupError


def main() -> int:
    """0 if everything passed, 1 if something did not, 2 if it cannot be run here."""
    rows: list[Row] = []
    try:
        settings = Settings.from_environment(os.environ)
        settings.check()
        settings.folder.mkdir(parents=True, exist_ok=True)
    except (SetupError, OSError) as err:
        print(f"test-systems: {err}", file=sys.stderr)
        return 2
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=False)
    if changed.stdout.strip():
        print("what is not committed is not in the clones")
    print(f"trees and logs: {settings.folder}", flush=True)
    try:
        all_runs(settings, Progress(sys.stdout), rows.append, results.keep)
    except KeyboardInterrupt:
        print("\nended by the user")
    print(f"\n{table(rows)}")
    return 0 if rows and all(row.good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
