# SPDX-License-Identifier: Apache-2.0
"""One lab for all its tests: it boots once and runs the checks that were asked for, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from live.packages import Unobtainable
from needs import missing

from .lab import Lab
from .results import Result

NEEDED = "qemu-system-x86 busybox-static binutils"
results: dict[str, Result] = {}


@pytest.fixture(scope="session")
def progress(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Tells on a terminal what is being done; says nothing in a pipe."""
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")

    def tell(text: str) -> None:
        if reporter is not None and reporter.isatty:
            reporter.write_line(f"xen lab: {text} ...")

    return tell


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest, library_path: Path, progress: Callable[[str], None]) -> Iterator[Lab]:
    """The running lab.

    The one place that decides whether it can run: without QEMU or packages its tests are skipped, in CI they fail.
    """
    parameters = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    try:
        running = Lab(library_path, [each["check"] for each in parameters if "check" in each], progress)
    except Unobtainable as err:
        missing(f"no Xen lab: {err}; to enable: apt-get install {NEEDED}")
    with running:
        yield running
        running.end()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the checks measured, also where all passed."""
    lines = [f"{name}: {figure}" for name, result in results.items() for figure in result.figures]
    if lines:
        terminalreporter.section("Xen lab, figures")
    for line in lines:
        terminalreporter.write_line(line)
