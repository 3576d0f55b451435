# SPDX-License-Identifier: Apache-2.0
"""A plugin of pytest: one of several processes that share the tests of a run between them.

Each of them collects all tests; then it takes one group after the other that no other process has taken, and leaves
what it did in a file. A group is a file of tests, or all that share guests or the Xen lab: a process boots those once.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

XEN = "tests/xenlab/"
GUESTS = "tests/live/(booted)"
LONG = 1000.0
"""Seconds of a group that no run has measured: it comes first, as one that is begun last may be all that is left."""


def group_of(item: pytest.Item) -> str:
    """The name of the tests that one process runs together."""
    file = item.nodeid.partition("::")[0]
    if file.startswith(XEN):
        return XEN
    return GUESTS if "booted" in getattr(item, "fixturenames", ()) else file


def place_of(group: str, seconds: Mapping[str, float]) -> tuple[float, bool, str]:
    """To sort groups by. Of those that no run has measured the Xen lab is first: no other takes as long."""
    return -seconds.get(group, LONG), group != XEN, group


class Worker:
    """``told`` is ``FOLDER:NAME:STAGE``: where the processes meet, this one's name, which tests it is about."""

    def __init__(self, told: str) -> None:
        folder, self._name, self._stage = told.rsplit(":", 2)
        self._folder = Path(folder)
        self._took: defaultdict[str, float] = defaultdict(float)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave those of the other stage out, and put those that take long first, as every process does."""
        alone = self._stage == "alone"
        wanted = [item for item in items if (item.get_closest_marker("alone") is not None) == alone]
        seconds = json.loads((self._folder.parent / "seconds.json").read_text())
        items[:] = sorted(wanted, key=lambda item: place_of(group_of(item), seconds))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """As pytest's own, over the groups that are left for this process."""
        if session.testsfailed or session.config.option.collectonly:
            return None
        mine = self._mine(session.items)
        item = next(mine, None)
        while item is not None:
            started, following = time.monotonic(), next(mine, None)
            session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            self._took[group_of(item)] += time.monotonic() - started
            if reason := session.shouldfail or session.shouldstop:
                raise session.Failed(reason)
            item = following
        return True

    def _mine(self, items: list[pytest.Item]) -> Iterator[pytest.Item]:
        """The tests of one group after the other; each group is taken when the last test before it is about to run."""
        groups: dict[str, list[pytest.Item]] = {}
        for item in items:
            groups.setdefault(group_of(item), []).append(item)
        for name, members in groups.items():
            if self._take(name):
                yield from members

    def _take(self, group: str) -> bool:
        """Take a group, unless another process has it."""
        with (self._folder / f"taken-{self._stage}").open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            if group in file.read().splitlines():
                return False
            file.write(group + "\n")
            return True

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Leave what came of the tests to whoever adds it up."""
        stats = terminalreporter.stats
        counts = {key: len(found) for key, found in stats.items() if key and key != "deselected"}
        skipped = [report.longrepr[2] for report in stats.get("skipped", [])]
        outcome = {"counts": counts, "skipped": skipped, "took": self._took}
        (self._folder / f"{self._name}.json").write_text(json.dumps(outcome))
