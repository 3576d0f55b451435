# SPDX-License-Identifier: Apache-2.0
"""Processes that look like QEMU from outside; what they do is in ``drivers/qemu_program.py``."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

PROGRAM = Path(__file__).with_name("drivers") / "qemu_program.py"

_numbers = itertools.count()


class Started(NamedTuple):
    """One that runs: its process, its machine's name, and the path of its monitor."""

    process: subprocess.Popen[str]
    name: str
    socket: Path


class QemuSimulators:
    """Starts such processes, with a copy of Python that bears QEMU's name; they end with the block."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is for the executable and the sockets."""
        self._folder = folder
        self._binary = folder / "qemu-system-x86_64"
        if not self._binary.exists():
            shutil.copy(os.path.realpath(sys.executable), self._binary)
        home = f"{sys.base_prefix}:{sys.base_exec_prefix}"
        libraries = str(sysconfig.get_config_var("LIBDIR"))
        inherited = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # a checker's
        self._environment = {**inherited, "PYTHONHOME": home, "LD_LIBRARY_PATH": libraries}
        self._running: list[subprocess.Popen[str]] = []

    @property
    def pid(self) -> int:
        """The process id of the one that was started last."""
        return self._running[-1].pid

    def start(self, *options: str) -> str:
        """Start one and return its machine's URI, once it serves."""
        return f"vmi://qemu/?vm_name={self.launch(*options).name}&timeout=30"

    def launch(self, *options: str) -> Started:
        """Start one, and wait until it serves."""
        number = next(_numbers)
        name, path = f"simulator-{os.getpid()}-{number}", self._folder / f"{number}.sock"
        monitor = f"unix:{path},server=on,wait=off"
        command = [str(self._binary), str(PROGRAM), "-name", name, "-qmp", monitor, *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self._environment)
        self._running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return Started(process, name, path)

    @contextmanager
    def memory_lost(self) -> Iterator[None]:
        """A block in which the last one started lacks the memory of its ``-fake lose=OFFSET``."""
        process = self._running[-1]
        assert process.stdout is not None
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "lost\n"
        yield
        process.send_signal(signal.SIGUSR2)
        assert process.stdout.readline() == "found\n"

    def __enter__(self) -> QemuSimulators:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            process.kill()
            process.communicate()
