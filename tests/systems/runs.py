# SPDX-License-Identifier: Apache-2.0
"""What is done in each system: the demo and the tests, with each of its Pythons, each in a fresh clone."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from . import facts, leftout
from .commands import Host, StepError, Tree
from .report import Progress, Row, counts
from .settings import DEBIANS, HOST, HOST_PYTHONS, ROOT, Settings, of_library, pytest_options

INSTALL = "apt-get install -y --no-install-recommends"
VERSION = re.compile(r"^python3\.(\d+)-dev\b", re.MULTILINE)
OLDEST = 10
FOR_LIBRARY = {
    *("binutils", "bzip2", "e2fsprogs", "ewf-tools", "g++", "iproute2", "liblzo2-2", "libsnappy1v5"),
    *("lz4", "lzop", "openssl", "xz-utils", "zstd"),
}
"""Packages of ``.ci/packages`` that the set ``library`` uses; the others are machines, tools and languages."""

Keep = Callable[[Row], None]


@dataclass(frozen=True)
class Task:
    """What is done with each Python of a system; who is told of a row when it begins, and when its tests have run."""

    settings: Settings
    name: str
    begun: Keep
    done: Keep

    @property
    def tests(self) -> str:
        """The word for its tests."""
        return self.settings.tests_of(self.name)

    @property
    def emulated(self) -> bool:
        """Whether qemu-user runs the system's programs."""
        return self.name != HOST and DEBIANS[self.name].emulated

    @property
    def left_out(self) -> leftout.Tests:
        """The tests that the system cannot pass, and why."""
        if self.emulated:
            return leftout.EMULATED
        return leftout.OLD_QEMU if self.machines and self.name != HOST and DEBIANS[self.name].qemu else {}

    @property
    def machines(self) -> bool:
        """Whether there are virtual machines, other people's tools and languages, with all packages that these take."""
        return not self.emulated and not of_library(self.tests)

    @property
    def before(self) -> str:
        """What a shell is told ahead of ``make test``; nothing is skipped where all packages of the tests are there."""
        options = f"{pytest_options(self.tests)} {leftout.options(self.left_out)}".strip()
        strict = "export CI=true; " if self.machines and self.name != HOST else ""
        return f"{strict}export PYTEST_ADDOPTS={shlex.quote(options)}; "

    @property
    def make(self) -> str:
        """Make, with the compiler that was chosen."""
        return f"make CC={shlex.quote(self.settings.compiler)}"


def all_runs(settings: Settings, progress: Progress, begun: Keep, done: Keep) -> None:
    """Run everything. A failed system does not end the others."""
    for name in settings.systems:
        task = Task(settings, name, begun, done)
        try:
            if name == HOST:
                _host(task, progress)
            else:
                _system(Tree(name, settings, progress), task)
        except StepError:
            begun(Row(name, "(did not get on)"))


def _system(tree: Tree, task: Task) -> None:
    """A Debian: the demo on the bare tree first, then all with the packages of the tests.

    An emulated one goes without the first: it lacks what every Debian lacks, and a build there takes long.
    """
    tree.make()
    pythons = _wanted(_debian_pythons(tree), task.settings.pythons)
    bare = task.emulated or _bare_demo(tree)
    tree.run("packages for the tests", "packages", f"{INSTALL} {_packages(task)}", needed=True)
    if task.machines and DEBIANS[tree.name].qemu:
        command = _other_qemu(DEBIANS[tree.name].qemu, task.settings.mirror)
        tree.run(f"QEMU of {DEBIANS[tree.name].qemu}", "qemu", command, needed=True)
    for python in pythons:
        row = Row(tree.name, python, tests=task.tests, emulator=facts.emulator(DEBIANS[tree.name]))
        _one_python(tree, row, task, python, bare=bare)


def _bare_demo(tree: Tree) -> bool:
    """Whether the demo runs where nothing is installed for it."""
    source = tree.clone("bare")
    return tree.run("make demo in the bare tree", "demo-bare", f"cd {source} && make demo")[0]


def _host(task: Task, progress: Progress) -> None:
    """This machine's other Pythons."""
    host = Host(HOST, task.settings, progress)
    for python in filter(_runs, task.settings.pythons or HOST_PYTHONS):
        _one_python(host, Row(HOST, python, tests=task.tests), task, python, bare=True)


def _one_python(place: Tree | Host, row: Row, task: Task, python: str, *, bare: bool) -> None:
    """Demo and tests with one Python in a clone of its own; ``bare`` is whether the bare tree's demo ran."""
    task.begun(row)
    began = time.monotonic()
    name = Path(python).name
    make = f"{task.make} PYTHON={shlex.quote(python)}"
    clone = place.clone(f"with-{name}")
    source = shlex.quote(clone)
    demo = place.run(f"make demo, {name}", f"demo-{name}", f"cd {source} && {make} demo")[0]
    row.demo = ("ok" if bare else "failed bare") if demo else "failed"
    version = place.run(f"its version, {name}", f"version-{name}", f"{shlex.quote(python)} -V")[1].split()
    row.python = version[1] if len(version) == 2 else python
    told = place.run("versions", "versions", facts.questions(task.settings.compiler, clone), needed=True)[1]
    facts.fill(row, told, task.settings.compiler)
    extras = f"{make} extras && " if task.machines else ""
    tests = f"{task.before}cd {source} && {extras}{make} test"
    row.ended, text = place.run(f"make test, {name}", f"test-{name}", tests)
    row.counts = counts(text)
    row.seconds = time.monotonic() - began
    task.done(row)


def _other_qemu(release: str, mirror: str) -> str:
    """A shell command that puts a release's QEMU in the place of the system's own."""
    names = " ".join(f"{name}/{release}" for name in _all_packages() if name.startswith("qemu-"))
    source = f"echo deb {shlex.quote(mirror)} {release} main > /etc/apt/sources.list.d/{release}.list"
    return f"{source} && apt-get update && {INSTALL} --allow-downgrades {names}"


def _all_packages() -> list[str]:
    lines = (ROOT / ".ci" / "packages").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def _packages(task: Task) -> str:
    names = [*_all_packages(), "npm"]  # as .ci/run has it, where there is none
    if not task.machines:
        names = [name for name in names if name in FOR_LIBRARY]
    return " ".join([*names, task.settings.compiler])


def _debian_pythons(tree: Tree) -> list[str]:
    """The system's own first, then every other one that it packages; by the names of their commands."""
    own = tree.ask("python3 -c 'import sys; print(sys.version_info[1])'")
    found = VERSION.findall(tree.ask("apt-cache search --names-only '^python3\\.[0-9]+-dev$'"))
    others = sorted({int(number) for number in found if int(number) >= OLDEST} - {int(own)})
    return [f"python3.{own}", *(f"python3.{number}" for number in others)]


def _wanted(found: Iterable[str], asked: tuple[str, ...]) -> list[str]:
    """Those that were asked for, ``python3`` is the first; all if none was."""
    names = list(found)
    return [name for name in names if not asked or name in asked or (name == names[0] and "python3" in asked)]


def _runs(python: str) -> bool:
    """Whether the command is there and is a Python; version managers leave commands that are not."""
    if shutil.which(python) is None:
        return False
    return subprocess.run([python, "-V"], capture_output=True, timeout=20, check=False).returncode == 0
