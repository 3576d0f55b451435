# SPDX-License-Identifier: Apache-2.0
"""Pause and resume, as ``query-status`` sees them, and what runs again when a context or a process ends."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from libmicrovmi_py import Microvmi

from .capi import Machine
from .conftest import OpenMachine
from .guest import Guest
from .marks import on_one_guest

pytestmark = on_one_guest


def test_pause_and_resume(guest: Guest, vm: Machine) -> None:
    for _ in range(2):
        assert vm.pause(), vm.error
        assert guest.monitor.status() == "paused"
    for _ in range(2):
        assert vm.resume(), vm.error
        assert guest.monitor.status() == "running"


def test_memory_stands_still_while_paused(guest: Guest, vm: Machine) -> None:
    def changes(seconds: float) -> bool:
        """Whether the kernel's data changes within that time."""
        before, deadline = vm.read(0x1000000, 64 << 20), time.monotonic() + seconds
        while time.monotonic() < deadline:
            if vm.read(0x1000000, 64 << 20) != before:
                return True
        return False

    assert changes(10)
    assert vm.pause()
    assert not changes(0.3)


def test_destroy_lets_the_machine_run_again(guest: Guest, open_machine: OpenMachine) -> None:
    with open_machine(guest.uri) as vm:
        assert vm.pause()
        assert guest.monitor.status() == "paused"
    assert guest.monitor.status() == "running"


def test_destroy_leaves_a_machine_stopped_that_was_stopped_before(paused: Guest, open_machine: OpenMachine) -> None:
    with open_machine(paused.uri) as vm:
        assert vm.pause()
    assert paused.monitor.status() == "paused"


def test_destroy_without_a_pause_changes_nothing(paused: Guest, open_machine: OpenMachine) -> None:
    with open_machine(paused.uri) as vm:
        assert vm.vcpu_count() == 2
    assert paused.monitor.status() == "paused"


def test_resume_runs_what_somebody_else_stopped(paused: Guest, vm: Machine) -> None:
    assert vm.resume()
    assert paused.monitor.status() == "running"


def _leave(guest: Guest, command: list[str]) -> tuple[str, int, str]:
    """Start a program that pauses the guest, then let it end; the run state meanwhile, exit code, messages."""
    with subprocess.Popen(
        command, env={}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert "paused" in process.stdout.readline()
            during = guest.monitor.status()
            messages = process.communicate("\n", timeout=30)[1]
        finally:
            process.kill()
    return during, process.returncode, messages


@pytest.mark.parametrize("way", ["return", "exit", "thread"])
def test_a_program_that_ends_lets_the_machine_run_again(guest: Guest, programs: Path, way: str) -> None:
    assert _leave(guest, [str(programs / "leave-paused"), guest.uri, way]) == ("paused", 0, "")
    assert guest.monitor.status() == "running"


@pytest.mark.parametrize("arguments", [[], ["--keep"]], ids=["resume", "keep"])
def test_the_example_program_lets_the_machine_run_again(guest: Guest, programs: Path, arguments: list[str]) -> None:
    assert _leave(guest, [str(programs / "pause"), *arguments, guest.name]) == ("paused", 0, "")
    assert guest.monitor.status() == "running"


def test_a_program_that_ends_leaves_a_machine_stopped_that_was_stopped_before(paused: Guest, programs: Path) -> None:
    assert _leave(paused, [str(programs / "leave-paused"), paused.uri, "return"]) == ("paused", 0, "")
    assert paused.monitor.status() == "paused"


def test_python_lets_the_machine_run_again_on_close(guest: Guest) -> None:
    with Microvmi(guest.name, driver="qemu") as machine:
        machine.pause()
        assert guest.monitor.status() == "paused"
        machine.resume()
        assert guest.monitor.status() == "running"
        machine.pause()
    assert guest.monitor.status() == "running"


def test_a_python_program_that_ends_lets_the_machine_run_again(guest: Guest, include_dir: Path) -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); from libmicrovmi_py import Microvmi; "
    code += "vm = Microvmi.open(sys.argv[2]); vm.pause(); print('paused', flush=True); input()"
    command = [sys.executable, "-c", code, str(include_dir.parent), guest.uri]
    assert _leave(guest, command) == ("paused", 0, "")
    assert guest.monitor.status() == "running"
