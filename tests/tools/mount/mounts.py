# SPDX-License-Identifier: Apache-2.0
"""``microvmi mount`` as a process, for tests that use the files."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from needs import missing

ROOT = Path(__file__).resolve().parents[3]
SECONDS = 30.0


def check_fuse() -> None:
    """End the test where no file system can be mounted."""
    if shutil.which("fusermount3") is None:
        missing("fusermount3 is not installed; to enable: apt-get install fuse3")
    if not os.path.exists("/dev/fuse"):
        missing("there is no /dev/fuse; to enable: modprobe fuse")


def is_mounted(folder: Path) -> bool:
    """Whether anything is mounted there, by the kernel's list: the file system itself is not asked."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    places = (line.split()[4].encode().decode("unicode_escape") for line in lines)  # a space is \\040 there
    return str(folder) in places


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition, for some seconds."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


class Mounted:
    """A mount that stands: its folder, the process, and what that has said so far."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], said: Path) -> None:
        self.folder, self.process, self._said = folder, process, said

    @property
    def said(self) -> str:
        """Both standard streams."""
        return self._said.read_text(errors="replace")

    def ended(self) -> int:
        """The exit code, when it has ended and nothing is mounted any more."""
        code = self.process.wait(SECONDS)
        until(lambda: not is_mounted(self.folder), "it is still mounted")
        return code


@contextlib.contextmanager
def mount(folder: Path, *words: str) -> Iterator[Mounted]:
    """Mount at a folder that is made for it, below ``folder``."""
    check_fuse()
    place, said = folder / "mounted here", folder / f"said {time.monotonic_ns()}"
    if not is_mounted(place):
        place.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "libmicrovmi_py.command", "mount", *words, str(place)]
    env = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    with said.open("wb") as file:
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    mounted = Mounted(place, process, said)
    try:
        until(lambda: "mounted at" in mounted.said or process.poll() is not None, "it does not mount")
        assert process.poll() is None, mounted.said
        yield mounted
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            mounted.ended()
        finally:
            if is_mounted(place):  # what failed is to leave nothing
                subprocess.run(["fusermount3", "-u", "-z", place], check=False)
