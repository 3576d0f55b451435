# SPDX-License-Identifier: Apache-2.0
"""Guests for the tests, the C library and the example programs.

Tests name the configurations they want on the fixture ``booted`` and use ``guest``: a guest is booted once and serves
all its tests one after the other; one such guest is alive at a time.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from needs import missing

from .capi import Machine
from .guest import QEMU, Boot, Config, Guest, obtain_boot
from .packages import ROOT, Unobtainable

OpenMachine = Callable[[str], Machine]
NewGuest = Callable[..., Guest]
RunProgram = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def boot(tmp_path_factory: pytest.TempPathFactory) -> Boot:
    """What guests boot from.

    The one place that decides whether live tests can run: without QEMU or a kernel they are skipped, in CI they fail.
    """
    try:
        if shutil.which(QEMU) is None:
            raise Unobtainable(f"{QEMU} is not installed")
        return obtain_boot(tmp_path_factory.mktemp("boot"))
    except Unobtainable as err:
        missing(f"no live guest: {err}; to enable: apt-get install qemu-system-x86 busybox-static")


@pytest.fixture(scope="session")
def booted(boot: Boot, request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A guest with a kernel, in the configuration that the test's parameter names."""
    with Guest(request.param, boot) as guest:
        yield guest


@pytest.fixture
def guest(booted: Guest) -> Iterator[Guest]:
    """The guest, running; whatever the test did, it runs again for the next one."""
    assert booted.monitor.status() == "running"
    yield booted
    if booted.monitor.status() != "running":
        booted.monitor.execute("cont")


@pytest.fixture
def paused(guest: Guest) -> Guest:
    """The guest, paused by its user."""
    guest.monitor.execute("stop")
    return guest


@pytest.fixture
def new_guest(boot: Boot) -> Iterator[NewGuest]:
    """Start a further guest: firmware only, stopped at its first instruction, ended with the test."""
    with ExitStack() as stack:
        yield lambda ram="private", **options: stack.enter_context(Guest(Config(ram, 64), **options))


@pytest.fixture(scope="session")
def library(stubs: ModuleType, library_path: Path) -> Any:
    """The C library."""
    return stubs.load(library_path)


@pytest.fixture
def open_machine(stubs: ModuleType, library: Any) -> Iterator[OpenMachine]:
    """Open a machine through the C library; it is destroyed with the test."""
    with ExitStack() as stack:
        yield lambda uri: stack.enter_context(Machine(stubs, library, uri))


@pytest.fixture
def vm(guest: Guest, open_machine: OpenMachine) -> Machine:
    """The guest through the C library."""
    return open_machine(guest.uri)


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory, library_path: Path, include_dir: Path) -> Path:
    """The directory with the example programs and those of these tests, linked against the library."""
    target = tmp_path_factory.mktemp("programs")
    compiler = shlex.split(os.environ.get("CC") or "cc")
    where = [f"-I{include_dir}", f"-L{library_path.parent}", f"-Wl,-rpath,{library_path.parent}"]
    ours = [path for path in Path(__file__).parent.glob("*.c") if "libmicrovmi.h" in path.read_text()]
    for source in [*(ROOT / "c_tests" / "examples").glob("*.c"), *ours]:  # others are programs for guests
        output = target / source.stem
        subprocess.run(
            [*compiler, "-O2", "-pthread", *where, "-o", output, source, "-lmicrovmi"], check=True, timeout=60
        )
    return target


@pytest.fixture(scope="session")
def run(programs: Path) -> RunProgram:
    """Run a program to its end with an empty environment; the arguments are made text."""

    def run_program(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(programs / name), *map(str, arguments)]
        return subprocess.run(command, env={}, cwd="/", capture_output=True, text=True, timeout=120, check=False)

    return run_program
