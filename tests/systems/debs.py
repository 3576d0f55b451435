# SPDX-License-Identifier: Apache-2.0
"""``make test-deb``: the packages of ``make deb`` in Debian 12, 13 and sid, used as docs/debian.md does.

They are built in one tree. In another, bare one they are installed, used and purged; what other packages they depend on
is there before, so that everything that is left over is theirs.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from documentation.blocks import blocks, commands
from install.installing import PROGRAM

from .commands import StepError, Tree
from .report import Progress
from .settings import HOST, Settings, SetupError

PAGE = "docs/debian.md"
PLACE = "/srv/client"
NAMES = {"libmicrovmi", "libmicrovmi-dev", "microvmi", "python3-microvmi"}
PASSING = ("dev", "proc", "sys", "tmp", "srv", "var/log", "var/cache/apt", "var/lib/apt/lists", "root/.cache")
"""What is not compared: what mounts lie on, what we lay down ourselves, and what apt tells and fetches."""

APT = 'APT::Get::Assume-Yes "true";\nAPT::Install-Recommends "false";\n'
EVERY = "for deb in dist/*.deb; do dpkg-deb -f $deb Depends; done | tr , '\\n'"
DEPENDS = f"{EVERY} | sed 's/^ *//; s/[ (:|].*//; /microvmi/d'"
INSTALLED = "dpkg-query -W -f '${Package} ${db:Status-Status}\\n'"
AGAIN = "make deb BUILD=elsewhere/build DIST=again && diff -r dist again"
LINTIAN = "apt-get install -y --no-install-recommends lintian"
RUN = "./client /tmp/vm.elf | grep -x 'dump 3'"


def main() -> int:
    """0 if everything held, 1 if something did not, 2 if it cannot be run here."""
    try:
        settings = Settings.from_environment(os.environ)
        settings.check()
        settings.folder.mkdir(parents=True, exist_ok=True)
    except (SetupError, OSError) as err:
        print(f"test-deb: {err}", file=sys.stderr)
        return 2
    print(f"trees and logs: {settings.folder}", flush=True)
    progress = Progress(sys.stdout)
    ended = [_system(Tree(name, settings, progress)) for name in settings.systems if name != HOST]
    return 0 if ended and all(ended) else 1


def _system(tree: Tree) -> bool:
    """Whether all of it held."""
    try:
        _lay_down(tree, _build(tree))
        _run(tree, "what the packages depend on", f"apt-get install $({DEPENDS})")
        use = [*_shown("microvmi "), *_shown("python3 ")]
        _without_a_trace(tree, "used", use)
        _run(tree, "a compiler", f"{_shown('apt-get install gcc')[0]} cmake make")
        cmake = ["cmake -S . -B by-cmake", "cmake --build by-cmake", f"cd by-cmake && {RUN}"]
        _without_a_trace(tree, "compiled with", ["rm /tmp/vm.elf", *use, *_shown("cc "), RUN, *cmake])
    except StepError:
        return False
    return True


def _shown(begin: str) -> list[str]:
    """The commands of the page that begin so, as root runs them."""
    shells = (block for block in blocks() if block.page == PAGE and block.language == "sh")
    told = (command.text.removeprefix("sudo ") for block in shells for command in commands(block))
    return [text for text in told if text.startswith(begin)]


def _run(tree: Tree, what: str, shell: str) -> str:
    """A step in the folder of the client; raises :class:`StepError`."""
    return tree.run(what, what.replace(" ", "-"), f"set -e; cd {PLACE}; {shell}", needed=True)[1]


def _build(tree: Tree) -> list[Path]:
    """The packages, which the system builds of a fresh clone; kept beside its trees."""
    tree.make()
    source = tree.clone("deb")
    (build,) = _shown("make ")
    tree.run(build, "make-deb", f"cd {source} && {build}", needed=True)
    tree.run("the same bytes once more", "make-deb-again", f"cd {source} && {AGAIN}", needed=True)
    tree.run("lintian", "lintian", f"{LINTIAN} && cd {source} && lintian dist/*.deb", needed=True)
    kept = tree.folder / "dist"
    shutil.rmtree(kept, ignore_errors=True)
    return sorted(Path(shutil.copytree(f"{tree.work}{source}/dist", kept)).glob("*.deb"))


def _lay_down(tree: Tree, packages: list[Path]) -> None:
    """A bare tree with the packages, and the sources of a client."""
    tree.make()
    (tree.work / "etc/apt/apt.conf.d/91yes").write_text(APT)
    place = Path(f"{tree.work}{PLACE}")
    (place / "dist").mkdir(parents=True)
    for package in packages:
        shutil.copy(package, place / "dist")
    (place / "client.c").write_text(PROGRAM)
    (cmake,) = (block.text for block in blocks() if block.language == "cmake")
    (place / "CMakeLists.txt").write_text(cmake)


def _without_a_trace(tree: Tree, what: str, shells: list[str]) -> None:
    """Install, run commands, purge; the files are then those of before, and apt has installed ours and no others."""
    files, packages = _files(tree), _installed(tree)
    (install,), (purge,) = _shown("apt-get install ./"), _shown("apt-get purge")
    _run(tree, f"installed to be {what}", install)
    _held(tree, f"{what}: other packages", _installed(tree) ^ packages ^ NAMES)
    _run(tree, what, "\n".join(shells))
    _run(tree, f"purged after being {what}", purge)
    _held(tree, f"{what}: packages that are left over", _installed(tree) ^ packages)
    _held(tree, f"{what}: files that are left over or gone", _files(tree) ^ files)


def _held(tree: Tree, what: str, found: set[str]) -> None:
    """A step that fails for each thing that was found; raises :class:`StepError`."""
    tree.must(what, "held", ["sh", "-c", 'printf "%s\\n" "$@"; [ $# = 0 ]', "sh", *sorted(found)])


def _installed(tree: Tree) -> set[str]:
    told = (line.split() for line in tree.ask(INSTALLED).splitlines())
    return {name for name, status in told if status == "installed"}


def _files(tree: Tree) -> set[str]:
    """Every path of the tree but what passes."""
    found = set()
    for folder, names, files in os.walk(tree.work):
        inside = os.path.relpath(folder, tree.work)
        names[:] = [name for name in names if os.path.normpath(f"{inside}/{name}") not in PASSING]
        found |= {os.path.normpath(f"{inside}/{name}") for name in (*names, *files)}
    return found


if __name__ == "__main__":
    sys.exit(main())
