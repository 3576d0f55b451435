# SPDX-License-Identifier: Apache-2.0
"""Where commands run: in a Debian tree, or on this machine; each with a log, a time limit, and a step that is told."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .report import Progress
from .settings import DEBIANS, ROOT, Settings

ENTER = Path(__file__).with_name("enter.sh")
LIMIT = 3 * 3600.0
"""Seconds for one step; the tests of two slow processors take twenty minutes."""

# Everything that runs in the tree ends with it, and all of it with us, however we end.
NAMESPACES = ("unshare", "--mount", "--pid", "--ipc", "--fork", "--kill-child")
WITH_US = ("setpriv", "--pdeathsig", "KILL", "env", "--default-signal=HUP,INT,QUIT")
"""And the tests' programs take signals, though who started us (nohup, a shell's background) ignores them."""


OWN_CERTIFICATES = Path("/usr/local/share/ca-certificates")
"""Where an administrator puts those that Debian does not have."""


class StepError(Exception):
    """A step failed, and what follows it cannot run; it was told already."""


class Place:
    """A system whose steps have their logs in ``logs``."""

    def __init__(self, name: str, settings: Settings, progress: Progress) -> None:
        self.name = name
        self.folder = settings.folder / name
        self.logs = self.folder / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self._settings = settings
        self._progress = progress

    def step(
        self, what: str, log_name: str, command: Sequence[str], environment: Mapping[str, str]
    ) -> tuple[bool, str]:
        """Run a program to its end: whether it ended with 0, and what it printed."""
        log = self.logs / f"{log_name}.log"
        self._progress.begin(f"{self.name}: {what}")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*WITH_US, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**environment}
            )
            try:
                good = self._wait(process, log)
            finally:
                process.kill()
                process.wait()
        self._progress.end(good, log)
        return good, log.read_text(errors="replace")

    def _wait(self, process: subprocess.Popen[bytes], log: Path) -> bool:
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            try:
                return process.wait(1.0) == 0
            except subprocess.TimeoutExpired:
                self._progress.running(log)
        return False

    def must(self, what: str, log_name: str, command: Sequence[str]) -> str:
        """A step on this machine without which nothing goes on; raises :class:`StepError`."""
        good, text = self.step(what, log_name, command, os.environ)
        if not good:
            raise StepError(what)
        return text


class Tree(Place):
    """A Debian: ``base`` as debootstrap made it, kept; ``work`` a fresh copy of it."""

    def __init__(self, name: str, settings: Settings, progress: Progress) -> None:
        super().__init__(name, settings, progress)
        self.base = self.folder / "base"
        self.work = self.folder / "work"

    def make(self) -> None:
        """The base where it is not there yet, and the copy; raises :class:`StepError`."""
        if not self.base.exists():
            aside = self.folder / "base.new"
            self.must("an old half-made tree goes", "remove", ["rm", "-rf", "--one-file-system", str(aside)])
            bare = ["--variant=minbase", "--include=ca-certificates,python3,make,git"]
            system = DEBIANS[self.name]
            processor = [f"--arch={system.debian}"] if system.debian else []
            command = ["debootstrap", *processor, *bare, system.release, str(aside), self._settings.mirror]
            self.must("debootstrap", "debootstrap", command)
            aside.rename(self.base)
        self.remove()
        self.must("a copy of the tree", "copy", ["cp", "-a", "--reflink=auto", str(self.base), str(self.work)])
        # A mirror may be a snapshot of a past day.
        (self.work / "etc/apt/apt.conf.d/90mirror").write_text('Acquire::Check-Valid-Until "false";\n')
        # A proxy with a certificate of its own is trusted in there as it is here.
        if OWN_CERTIFICATES.is_dir():
            target = self.work / OWN_CERTIFICATES.relative_to("/")
            shutil.copytree(OWN_CERTIFICATES, target, dirs_exist_ok=True)
        update = "update-ca-certificates && apt-get update && apt-get dist-upgrade -y"
        self.run("packages brought up to date", "update", update, needed=True)

    def remove(self) -> None:
        """Remove the copy."""
        if self.work.exists():
            self.must("the last copy goes", "remove", ["rm", "-rf", "--one-file-system", str(self.work)])

    def clone(self, name: str) -> str:
        """A fresh clone of our tree in the copy; returns its path in there."""
        inside = f"/srv/{name}"  # other users can look into it, as tests want
        target = f"{self.work}{inside}"
        self.must("a fresh clone", "clone", ["git", "clone", "-q", "--no-hardlinks", str(ROOT), target])
        return inside

    def run(self, what: str, log_name: str, shell: str, *, needed: bool = False) -> tuple[bool, str]:
        """Run a shell command in the copy; raises :class:`StepError` if it fails and was needed."""
        variables = [f"{key}={value}" for key, value in self._settings.network.items()]
        command = [*NAMESPACES, str(ENTER), str(self.work), str(self.folder / "cache"), shell, *variables]
        good, text = self.step(what, log_name, command, os.environ)
        if needed and not good:
            raise StepError(what)
        return good, text

    def ask(self, shell: str) -> str:
        """What a shell command in the copy prints, without a word about it."""
        return self.run(f"asks {shlex.split(shell)[0]}", "ask", shell, needed=True)[1].strip()


class Host(Place):
    """This machine, as the user who runs this; the clones are in ``work``."""

    def clone(self, name: str) -> str:
        """A fresh clone of our tree; returns its path."""
        target = self.folder / "work" / name
        self.must("the last clone goes", "remove", ["rm", "-rf", str(target)])
        self.must("a fresh clone", "clone", ["git", "clone", "-q", "--no-hardlinks", str(ROOT), str(target)])
        return str(target)

    def run(self, what: str, log_name: str, shell: str, *, needed: bool = False) -> tuple[bool, str]:
        """Run a shell command; raises :class:`StepError` if it fails and was needed."""
        others = ("MAKE", "MFLAGS", "PYTHON", "CI", "TESTS", "JOBS")  # what this run was told, and is not for those
        mine = {key: value for key, value in os.environ.items() if not key.startswith(others)}
        good, text = self.step(what, log_name, ["sh", "-c", shell], mine)
        if needed and not good:
            raise StepError(what)
        return good, text
