# SPDX-License-Identifier: Apache-2.0
"""Small guests that are scanned, and the workers of Dask that scan them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from needs import with_extra

from .firmware import Firmware, firmware, new_name, wait_for

ROOT = Path(__file__).resolve().parents[2]
MARKED = 0x100000
"""Where the memory of a guest has its name."""
FILLED = b"\xf1"

SECONDS = 60.0


def environment(*, dask: bool = True) -> dict[str, str]:
    """That of a program with our package, and Dask: without it the test ends here."""
    found = with_extra("distributed") if dask else {**os.environ, "PYTHONPATH": str(ROOT)}
    return {**found, "PYTHONUNBUFFERED": "1"}


@contextmanager
def guests(folder: Path, count: int, large: int = 0) -> Iterator[list[Firmware]]:
    """So many that stand from the start, of 8 MiB each, with their names at ``MARKED``; the last one of ``large`` MiB.

    Half of the large one is filled.
    """
    base = new_name("fleet")
    with ExitStack() as stack:
        found = []
        for number in range(count):
            own = folder / str(number)
            own.mkdir()
            name = f"{base}-{number:03}"
            size = large if large and number == count - 1 else 8
            content = f"{name}!".encode().ljust(4096, b"\0") + FILLED * (size << 19 if size > 8 else 0)
            (own / "content").write_bytes(content)
            loader = f"loader,file={own / 'content'},addr={MARKED:#x},force-raw=on"
            monitor = f"unix:{own / 'qmp'},server=on,wait=off"
            options = ("-S", "-nodefaults", "-qmp", monitor, "-device", loader)
            found.append(stack.enter_context(firmware(own, *options, name=name, mib=size)))
        yield found


def names_of(machines: Sequence[Firmware]) -> str:
    """A pattern that matches the names of these guests and no other's."""
    return f"{machines[0].name.rpartition('-')[0]}-*"


class Workers:
    """A scheduler and its workers, each a process of one thread."""

    def __init__(self, folder: Path, stack: ExitStack, variables: Mapping[str, str]) -> None:
        self._folder, self._stack, self._variables = folder, stack, variables
        self._file = folder / "scheduler.json"
        self._start("dask_scheduler", "--port", "0")
        wait_for(self._file.exists)

    @property
    def address(self) -> str:
        """The scheduler's."""
        return str(json.loads(self._file.read_text())["address"])

    def worker(self, kind: str = "--no-nanny") -> subprocess.Popen[bytes]:
        """One more; with ``--nanny``, which is Dask's default, by a process that starts it again."""
        return self._start("dask_worker", "--nthreads", "1", kind, "--local-directory", str(self._folder))

    def _start(self, program: str, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.{program}", "--host", "127.0.0.1", "--no-dashboard"]
        command += ["--scheduler-file", str(self._file), *words]
        with open(self._folder / "workers.log", "ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._variables, cwd=self._folder
            )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process


@contextmanager
def workers(folder: Path) -> Iterator[Workers]:
    """A scheduler without workers yet; all of them end with the block."""
    with ExitStack() as stack:
        yield Workers(folder, stack, environment())


def scan(*words: object, dask: bool = True) -> subprocess.Popen[str]:
    """The command, as a user starts it in a pipe."""
    command = [sys.executable, "-m", "libmicrovmi_py.command", "scan", *map(str, words)]
    pipe = subprocess.PIPE
    variables = environment(dask=dask)
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, env=variables)


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition; the test fails after a minute."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {SECONDS:g} s"
        time.sleep(0.02)
