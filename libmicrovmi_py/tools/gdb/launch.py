# SPDX-License-Identifier: Apache-2.0
"""The user's own gdb on a machine: started in the terminal, connected, and with what it needs to know."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.errors import NotSupportedError, VmGoneError
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.model import Architecture
from libmicrovmi_py.tools.gdb.serve import listening, serve

if TYPE_CHECKING:
    from libmicrovmi_py.linux.kernel import Kernel

_ENDING = 5.0
"""Seconds that a gdb that is told to end may take."""

_HOSTS = {Architecture.X86: ("x86_64", "i686", "i386"), Architecture.AARCH64: ("aarch64",)}


def found(name: str, architecture: Architecture) -> str:
    """The path of a debugger: of that name, or one that knows a machine's architecture.

    Raises ``NotSupportedError`` with the command that installs it.
    """
    own = platform.machine() in _HOSTS[architecture]
    names = [name] if name else ["gdb", "gdb-multiarch"] if own else ["gdb-multiarch"]
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        package = name or names[-1 if not own else 0]
        raise NotSupportedError(
            f"{package} is not installed: apt install {package}, or use --listen and any other debugger"
        )
    return os.path.abspath(path)


def debug(
    machine: Microvmi,
    program: str,
    before: Sequence[str],
    arguments: Sequence[str],
    kernel: Kernel | None = None,
) -> int:
    """Have ``program`` debug a machine until it ends, and return its exit code.

    ``before`` are commands that it runs in front of ``target remote``; ``arguments`` are the user's. It has the
    terminal, and with it Ctrl-C. Whatever ends this ends it.
    """
    folder = Path(tempfile.mkdtemp(prefix="microvmi-gdb-"))
    try:
        path = str(folder / "gdb")
        commands = [*before, f"target remote {path}"]
        words = [program, "-q", *(word for command in commands for word in ("-ex", command)), *arguments]
        with listening(path) as listener, _started(words) as (process, ends):
            with suppress(VmGoneError):  # gdb has told its user, who may have more to do there
                serve(machine, listener, ends, kernel)
            return process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _started(words: Sequence[str]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A program that has the terminal, and a descriptor that is readable when it has ended."""
    before = signal.signal(signal.SIGINT, _left_to_gdb)
    try:
        with subprocess.Popen(words) as process:
            ends = os.pidfd_open(process.pid)
            try:
                yield process, ends
            finally:
                os.close(ends)
                _end(process)
    finally:
        signal.signal(signal.SIGINT, before)


def _left_to_gdb(number: int, frame: object) -> None:
    """Ctrl-C comes to every program of the terminal; gdb has the machine stopped for it."""


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_ENDING)
        except subprocess.TimeoutExpired:
            process.kill()
