# SPDX-License-Identifier: Apache-2.0
"""Running ``microvmi`` as a user does: at a terminal, in a pipe, interrupted."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from needs import EXTRAS
from needs import ROOT as ROOT

PLUGINS = Path(__file__).resolve().parent / "plugins"
MICROVMI = (sys.executable, "-m", "libmicrovmi_py.command")
TRIES = 5
SECONDS = 60.0


def environment(**more: str) -> dict[str, str]:
    """What the command is run with: our package, those of ``make extras``, and the drivers of these tests.

    Nothing of the user's: what is kept from one run to the next lies in the build folder.
    """
    found = {
        "PYTHONPATH": f"{ROOT}:{EXTRAS}",
        "XDG_CACHE_HOME": str(ROOT / "build" / "cache"),
        "MICROVMI_PLUGIN_PATH": str(PLUGINS),
        "PATH": os.environ["PATH"],
    }
    return {**found, "PYTHONDONTWRITEBYTECODE": "1", "TERM": "xterm", **more}


@dataclass(frozen=True)
class Done:
    """How it ended: ``code`` is negative for a signal."""

    code: int
    out: str
    err: str


def piped(*words: object, **more: str) -> Done:
    """Run it in a pipe, from another folder."""
    done = subprocess.run(
        [*MICROVMI, *map(str, words)],
        env=environment(**more),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def at_terminal(*words: object, **more: str) -> Done:
    """Run it with a terminal for all three streams; all that comes out is in ``out``."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*MICROVMI, *map(str, words)], env=environment(**more), cwd="/", stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    try:
        text = _until_closed(master, time.monotonic() + SECONDS)
        return Done(process.wait(SECONDS), text, "")
    finally:
        process.kill()
        process.wait()
        os.close(master)


def _until_closed(master: int, end: float) -> str:
    content = b""
    while time.monotonic() < end and select.select([master], [], [], max(0.0, end - time.monotonic()))[0]:
        try:
            piece = os.read(master, 65536)
        except OSError:  # EIO: nobody has the other end any more
            break
        content += piece
    return content.decode(errors="replace").replace("\r\n", "\n")


def interrupted(number: signal.Signals, words: Sequence[object], begun: Callable[[str], bool], **more: str) -> Done:
    """Run it, and send the signal when ``begun`` says so of what has come out until then, both streams together.

    One that was done before the signal came is run again, a few times: how long it takes is nobody's promise.
    """
    for _ in range(TRIES):
        done = _interrupted_once(number, words, begun, environment(**more))
        if done.code != 0:
            break
    return done


def _interrupted_once(
    number: signal.Signals, words: Sequence[object], begun: Callable[[str], bool], env: Mapping[str, str]
) -> Done:
    command = [*MICROVMI, *map(str, words)]
    with subprocess.Popen(command, env=env, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        text, end = "", time.monotonic() + SECONDS
        try:
            while not begun(text) and process.poll() is None:
                assert time.monotonic() < end, f"it has not begun: {text}"
                time.sleep(0.02)
                text += (process.stdout.read() or b"").decode()
            process.send_signal(number)
            process.wait(SECONDS)
            text += (process.stdout.read() or b"").decode()
        finally:
            process.kill()
        return Done(process.returncode, text, "")


def one_line(text: str) -> str:
    """The line of an error without what stands before it."""
    found = re.fullmatch(r"microvmi: (.*)\n", text)
    assert found, f"not one line: {text!r}"
    return found[1]
