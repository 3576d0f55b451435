# SPDX-License-Identifier: Apache-2.0
"""Processes that have memory as virtual machine monitors have it; see ``drivers/vmm_program.py``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from drivers.vmm_program import STEP

PROGRAM = Path(__file__).with_name("drivers") / "vmm_program.py"


def numbered(first: int, size: int) -> bytes:
    """What such a process has in ``size`` bytes from byte ``first`` of its mappings on; multiples of 64 KiB."""
    numbers = range(first // STEP, (first + size) // STEP)
    return b"".join(number.to_bytes(8, "little").ljust(STEP, b"\0") for number in numbers)


class VmmSimulators:
    """Starts such processes, with a copy of Python that bears the program's name; they end with the block."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is for the executables."""
        self._folder = folder
        home = f"{sys.base_prefix}:{sys.base_exec_prefix}"
        libraries = str(sysconfig.get_config_var("LIBDIR"))
        inherited = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # a checker's
        self._environment = {**inherited, "PYTHONHOME": home, "LD_LIBRARY_PATH": libraries}
        self._running: list[subprocess.Popen[str]] = []

    def start(self, program: str, mappings: str, *options: str) -> subprocess.Popen[str]:
        """Start one whose program has that name, with those options, and wait until it has mapped all."""
        binary = self._folder / program
        if not binary.exists():
            shutil.copy(os.path.realpath(sys.executable), binary)
        command = [str(binary), str(PROGRAM), *options]
        environment = {**self._environment, "MAPPINGS": mappings}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        self._running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def __enter__(self) -> VmmSimulators:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            process.kill()
            process.communicate()
