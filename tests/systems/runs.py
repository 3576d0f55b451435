# SPDX-License-Identifier: Apache-2.0
"""What is done in each system: the demo and the tests, with each of its Pythons, each in a fresh clone."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from .commands import Host, StepError, Tree
from .report import Progress, Row, counts
from .settings import HOST, HOST_PYTHONS, ROOT, Settings

INSTALL = "apt-get install -y --no-install-recommends"
VERSION = re.compile(r"^python3\.(\d+)-dev\b", re.MULTILINE)
OLDEST = 10
NO_LIVE = "export PYTEST_ADDOPTS=--ignore=tests/live; "

Keep = Callable[[Row], None]


def all_runs(settings: Settings, progress: Progress, keep: Keep) -> None:
    """Run everything; each row is handed to ``keep`` before it is filled. A failed system does not end the others."""
    for name in settings.systems:
        try:
            if name == HOST:
                _host(settings, progress, keep)
            else:
                _system(Tree(name, settings, progress), settings, keep)
        except StepError:
            keep(Row(name, "(did not get on)"))


def _system(tree: Tree, settings: Settings, keep: Keep) -> None:
    """A Debian: the demo on the bare tree first, then all with the packages of the tests."""
    tree.make()
    pythons = _wanted(_debian_pythons(tree), settings.pythons)
    source = tree.clone("bare")
    bare = tree.run("make demo in the bare tree", "demo-bare", f"cd {source} && make demo")[0]
    tree.run("packages for the tests", "packages", f"{INSTALL} {_packages()}", needed=True)
    qemu = tree.ask("qemu-system-x86_64 --version").split("version ")[1].split()[0]
    for python in pythons:
        row = Row(tree.name, python, qemu)
        keep(row)
        live = "" if settings.live else NO_LIVE
        _one_python(tree, row, f"export CI=true; {live}", python)
        row.demo = row.demo if bare else "failed bare"


def _host(settings: Settings, progress: Progress, keep: Keep) -> None:
    """This machine's other Pythons, without live tests."""
    host = Host(HOST, settings, progress)
    for python in filter(_runs, settings.pythons or HOST_PYTHONS):
        row = Row(HOST, python)
        keep(row)
        _one_python(host, row, NO_LIVE, python)


def _one_python(place: Tree | Host, row: Row, before: str, python: str) -> None:
    """Demo and tests with one Python in a clone of its own."""
    began = time.monotonic()
    name = Path(python).name
    make = f"make PYTHON={shlex.quote(python)}"
    source = shlex.quote(place.clone(f"with-{name}"))
    row.demo = "ok" if place.run(f"make demo, {name}", f"demo-{name}", f"cd {source} && {make} demo")[0] else "failed"
    version = place.run(f"its version, {name}", f"version-{name}", f"{shlex.quote(python)} -V")[1].split()
    row.python = version[1] if len(version) == 2 else python
    tests = f"{before}cd {source} && {make} extras && {make} test"
    row.ended, text = place.run(f"make test, {name}", f"test-{name}", tests)
    row.counts = counts(text)
    row.seconds = time.monotonic() - began


def _packages() -> str:
    lines = (ROOT / ".ci" / "packages").read_text().splitlines()
    return " ".join(line for line in lines if not line.startswith("#"))


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
