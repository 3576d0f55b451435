# SPDX-License-Identifier: Apache-2.0
"""The lab's own machinery; nothing here boots."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from live.cpio import Archive

from .guests import ROOT, layout
from .overlay import checks
from .results import parse


def _run_one_check(**environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/xenlab/test_checks.py"]
    variables = {"HOME": "/tmp", "PATH": "/no-such-directory", **environment}
    return subprocess.run(
        [*command, "-k", "memory"], cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60, check=False
    )


def test_without_qemu_the_checks_are_skipped_with_advice() -> None:
    ended = _run_one_check()
    assert ended.returncode == 0
    assert "1 skipped" in ended.stdout
    assert "to enable: apt-get install qemu-system-x86" in ended.stdout


def test_without_qemu_the_checks_fail_in_ci() -> None:
    ended = _run_one_check(CI="true")
    assert ended.returncode == 1
    assert "qemu-system-x86_64 is not installed" in ended.stdout


def test_results_are_read_while_they_are_written(tmp_path: Path) -> None:
    report = tmp_path / "report"
    assert parse(report) == {}
    report.write_text("begin tiny/a\n| figure: 3 us\n| more\npass tiny/a 1.50\nbegin tiny/b\n| why\nfail tiny/b 0.1")
    assert list(parse(report)) == ["tiny/a"]
    with report.open("a") as file:
        file.write("0 exit code 1\n")
    passed, failed = parse(report).values()
    assert (passed.figures, passed.seconds, passed.reason) == (["3 us"], 1.5, "")
    assert (failed.text, failed.reason) == (["why"], "exit code 1")


def test_an_archive_has_the_folders_above_its_files(tmp_path: Path) -> None:
    archive = Archive()
    archive.file("/a/b/program", b"#!/bin/sh\n", program=True)
    archive.link("/a/link", "b/program")
    content = archive.to_bytes()
    names = [content.index(name + b"\0") for name in (b"a", b"a/b", b"a/b/program", b"a/link", b"TRAILER!!!")]
    assert names == sorted(names)
    assert len(content) % 4 == 0


@pytest.mark.parametrize("name", ["PAGE_ADDRESS", "KNOWN_RBX", "MSR_SYSENTER_CS", "CR4_FLIP"])
def test_python_checks_have_the_numbers_of_the_layout(name: str) -> None:
    assert name in layout()


def test_checks_are_found_by_their_files() -> None:
    assert "tiny/memory" in checks()
    assert "linux/cr3" in checks()
