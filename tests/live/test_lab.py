# SPDX-License-Identifier: Apache-2.0
"""The live tests' own machinery: it skips with advice, fails in CI, and leaves nothing behind."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from . import packages
from .guest import BOOT_SECONDS, Boot, Config, Guest


def _run_tests(wanted: str = "number_of_vcpus", **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/live/test_about.py"]
    variables = {"HOME": "/tmp", "PATH": "/no-such-directory", **environment}
    return subprocess.run(
        [*command, "-k", wanted],
        cwd=packages.ROOT,
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_without_qemu_the_tests_are_skipped_with_advice() -> None:
    ended = _run_tests()
    assert ended.returncode == 0
    assert "1 skipped" in ended.stdout
    assert "to enable: apt-get install qemu-system-x86 busybox-static" in ended.stdout


def test_many_skipped_tests_are_told_in_one_line() -> None:
    ended = _run_tests("test")
    lines = [line for line in ended.stdout.splitlines() if "to enable" in line]
    assert len(lines) == 1
    assert re.match(r"SKIPPED \[\d\d+\] no live guest: .*; to enable: apt-get install", lines[0])


def test_without_qemu_the_tests_fail_in_ci() -> None:
    ended = _run_tests(CI="true")
    assert ended.returncode == 1
    assert "qemu-system-x86_64 is not installed" in ended.stdout


def test_a_home_that_cannot_be_written_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/proc/no-home")
    assert packages.cache_directory() == packages.ROOT / "build" / "live-cache"


def test_a_guest_leaves_nothing_behind(boot: Boot) -> None:
    with Guest(Config("file", 64)) as guest:
        assert Path(f"/proc/{guest.pid}").exists()
        assert guest.ram_file.stat().st_size == guest.config.size
    assert not Path(f"/proc/{guest.pid}").exists()
    assert not guest.directory.exists()


def test_a_guest_that_does_not_start_leaves_nothing_behind(boot: Boot) -> None:
    guest = Guest(Config(mib=64), options=["-no-such-option"])
    with pytest.raises(RuntimeError, match="no-such-option"):
        guest.start()
    guest.stop()
    assert not guest.directory.exists()


def test_a_kernel_that_comes_to_no_end_is_booted_again(boot: Boot, capfd: pytest.CaptureFixture[str]) -> None:
    with Guest(Config(mib=256), boot, patience=(0.0, BOOT_SECONDS[1])) as guest:
        assert guest.banner
    assert "another boot: " in capfd.readouterr().err


def test_a_machine_that_somebody_stopped_is_not_booted_again(boot: Boot) -> None:
    guest = Guest(Config(mib=256), boot, options=["-S"], patience=(0.0, BOOT_SECONDS[1]))
    with pytest.raises(TimeoutError):
        guest.start()
    guest.stop()
