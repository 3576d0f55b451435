# SPDX-License-Identifier: Apache-2.0
"""A plugin of volatility on one machine: ``microvmi vol`` as a program of its own, whose memory ends with it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Any

from libmicrovmi_py.errors import InvalidArgumentError, IoError, TimeoutExpiredError, escaped

_VIEWS = {"live": "--live", "pause": "--pause", "snapshot": "--snapshot"}
_LARGEST = 1 << 30
"""Bytes of a file that it may write: what a guest says makes its rows."""
_LAST = 4096
"""Bytes of what it says on standard error that are looked at."""


def answer(uri: str, words: Sequence[str], view: str, most: int, limit: float) -> dict[str, Any]:
    """Its rows. Raises ``TimeoutExpiredError`` after ``limit`` seconds, ``IoError`` with the program's reason."""
    if not words:
        raise InvalidArgumentError("vol: which plugin? linux.pslist.PsList, for example")
    command = [sys.executable, "-m", "libmicrovmi_py.command", "vol", _VIEWS[view], uri, "-q", "-r", "json", *words]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as said:
        _run(command, output, said, limit)
        output.seek(0)
        data = output.read(most + 1)
    if len(data) > most:
        raise IoError(f"the plugin's rows take more than {most} bytes: --most allows more")
    try:
        return {"result": json.loads(data)}
    except (ValueError, RecursionError) as err:
        raise IoError("the plugin's rows are no JSON") from err


def _run(command: Sequence[str], output: IO[bytes], said: IO[bytes], limit: float) -> None:
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # it finds what this process does
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=said, env=variables) as process:
        try:
            with suppress(ProcessLookupError):
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (_LARGEST, _LARGEST))
            process.wait(limit)
        except subprocess.TimeoutExpired as err:
            raise TimeoutExpiredError(f"the plugin did not end within {limit:g} s") from err
        finally:
            process.terminate()  # what it did to the machine is undone; it does nothing to one that ended
    if process.returncode:
        said.seek(max(0, said.seek(0, 2) - _LAST))
        lines = said.read().decode(errors="replace").strip().splitlines()
        reason = lines[-1].removeprefix("microvmi: ") if lines else f"it ended with {process.returncode}"
        raise IoError(escaped(reason))
