# SPDX-License-Identifier: Apache-2.0
"""Machines of frame drivers, by the tests' simulators behind real libraries, and what they cost."""

from __future__ import annotations

import importlib
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import guests
from programs import TESTS, Programs

SIZE = 16 << 20
"""Bytes of memory of each."""

FAKE = f"vmi://fake/?size={SIZE:#x}"


def measure_fake(programs: Programs, seconds: float) -> list[list[str]]:
    """Reads of the fake driver beside empty calls into Python."""
    try:
        path = programs.empty_call()
    except ImportError as err:
        raise guests.Unavailable(f"{err}: build/venv has it") from err
    return _frames(programs, seconds, "fake", FAKE, f"empty={path}")


def measure_virtualbox(programs: Programs, seconds: float) -> list[list[str]]:
    """Reads of a simulated VirtualBox beside those of its library."""
    simulator = importlib.import_module(_module("virtualbox"))
    with ExitStack() as stack:
        library = simulator.build(programs.directory)
        machine = stack.enter_context(simulator.simulated(library, {0: SIZE}))
        return _frames(programs, seconds, "virtualbox", machine.uri, f"fdp={library}", f"machine={machine.name}")


def measure_kvm(programs: Programs, seconds: float) -> list[list[str]]:
    """Reads of a simulated KVM beside those of its library: over the socket, in this process, and by two threads."""
    lines = []
    with ExitStack() as stack:
        ours, partner, second, partners_second = (stack.enter_context(_kvm(programs.directory, at)) for at in range(4))
        for name, library in (("kvm", "socket"), ("kvm, no socket", "near")):
            path = programs.path(f"libkvmi-{library}.so")
            with _on(_processors()[:1]):
                lines += _frames(programs, seconds, name, _uri(ours, path), f"kvmi={path}", f"socket={partner}")
        path = programs.path("libkvmi-waits.so")
        both = [f"uri2={_uri(second, path)}", f"socket2={partners_second}"]
        lines += _frames(programs, 2 * seconds, "kvm", _uri(ours, path), f"kvmi={path}", f"socket={partner}", *both)
    return lines


def _processors() -> list[int]:
    return sorted(os.sched_getaffinity(0))


@contextmanager
def _on(processors: list[int]) -> Iterator[None]:
    """What is started meanwhile runs there: where a simulator wakes up beside its caller makes four times the time."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _frames(programs: Programs, seconds: float, name: str, uri: str, *arguments: str) -> list[list[str]]:
    given = [f"library={programs.library}", f"seconds={seconds}", f"size={SIZE:#x}", f"name={name}", f"uri={uri}"]
    return programs.run("frames", *given, *arguments)


def _module(name: str) -> str:
    """The simulator that the tests of a driver have."""
    return f"drivers.{name}.simulator"


def _uri(socket: Path, library: Path) -> str:
    return f"vmi://kvm/?kvm_unix_socket={socket}&library={library}&timeout=10"


@contextmanager
def _kvm(folder: Path, number: int) -> Iterator[Path]:
    """A machine that connects to the socket; its memory is the same as that of the others."""
    memory, socket = folder / "kvm-memory", folder / f"kvm-{number}"
    if not memory.exists():
        memory.write_bytes(random.Random(1).randbytes(SIZE))
    command = [sys.executable, "-m", _module("kvm"), str(socket), f"0:{memory}"]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    with _on(_processors()[-1:]):
        machine = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment
        )
    with machine:
        assert machine.stdout is not None
        if machine.stdout.readline() != "ready\n":
            raise guests.Unavailable("the simulator of a KVM does not start")
        yield socket
        machine.communicate()
