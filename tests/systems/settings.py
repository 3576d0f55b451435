# SPDX-License-Identifier: Apache-2.0
"""What is to be run and where, out of the environment; what is missing for it, with the command that brings it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EMULATORS = Path("/proc/sys/fs/binfmt_misc")
"""What the kernel hands programs of other processors to."""


class SetupError(Exception):
    """Why it cannot be done, and what to do about it; one line."""


@dataclass(frozen=True)
class System:
    """A Debian that debootstrap makes; ``debian`` and ``machine`` are its and the kernel's words for the processor.

    ``qemu`` is the release whose QEMU it has, if that is another.
    """

    release: str
    debian: str = ""
    machine: str = ""
    qemu: str = ""

    @property
    def emulated(self) -> bool:
        """Whether qemu-user runs its programs here."""
        return bool(self.machine) and self.machine != platform.machine()

    @property
    def emulator(self) -> Path:
        """Its entry in the kernel's list of emulators."""
        return EMULATORS / f"qemu-{self.machine}"

    def check(self) -> None:
        """Raises :class:`SetupError` if nothing runs its programs here."""
        if self.emulated and not self.emulator.exists():
            raise SetupError(
                f"nothing runs {self.debian}'s programs here: apt-get install qemu-user-static binfmt-support; "
                "without: SYSTEMS='bookworm trixie sid host'"
            )


DEBIANS = {
    **{name: System(name) for name in ("bookworm", "trixie", "sid")},
    "bookworm-qemu5": System("bookworm", qemu="bullseye"),
    "bookworm-arm64": System("bookworm", "arm64", "aarch64"),
}
HOST = "host"
"""This machine: for Pythons that no Debian of the others has."""

SYSTEMS = (*DEBIANS, HOST)
HOST_PYTHONS = ("python3.10", "python3.12")
PASSED_ON = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "PIP_INDEX_URL")

# What does not depend on the processor: texts of the tree, packages, tools of others.
TEXTS = ("layers", "release", "reliability", "sizes", "tour", "words")
ELSEWHERE = ("live", "bench", "documentation", "install", "mutants", "parallel", "systems", "tools")
SETS = {
    "all": "",
    "no-live": "--ignore=tests/live",
    "library": " ".join(
        [f"--ignore=tests/{name}" for name in ELSEWHERE] + [f"--ignore=tests/test_{name}.py" for name in TEXTS]
    ),
}
"""Tests by a word, and what pytest is told for them; any other word is what pytest is told."""


@dataclass(frozen=True)
class Settings:
    """``pythons`` and ``tests`` are empty if nobody chose; ``folder`` keeps trees, what was downloaded, and logs."""

    systems: tuple[str, ...]
    pythons: tuple[str, ...]
    tests: str
    compiler: str
    folder: Path
    mirror: str
    network: Mapping[str, str]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Raises :class:`SetupError` for a system that is not known."""
        systems = tuple(environment.get("SYSTEMS", "").split()) or SYSTEMS
        for name in systems:
            if name not in SYSTEMS:
                raise SetupError(f"SYSTEMS={name}: no such system; it takes {' '.join(SYSTEMS)}")
        cache = environment.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        folder = environment.get("MICROVMI_SYSTEMS_DIR") or f"{cache}/libmicrovmi/systems"
        return cls(
            systems=systems,
            pythons=tuple(environment.get("PYTHONS", "").split()),
            tests=" ".join(environment.get("TESTS", "").split()),
            compiler=environment.get("CC") or "gcc",
            folder=Path(folder).resolve(),
            mirror=environment.get("DEBIAN_MIRROR") or "http://deb.debian.org/debian",
            network={name: environment[name] for name in PASSED_ON if name in environment},
        )

    def tests_of(self, name: str) -> str:
        """The word for the tests of a system: those that were chosen, else all that it can run."""
        if self.tests:
            return self.tests
        if name == HOST:
            return "no-live"
        return "library" if DEBIANS[name].emulated else "all"

    def check(self) -> None:
        """Raises :class:`SetupError` if this user or this machine cannot make trees."""
        wanted = [name for name in self.systems if name != HOST]
        if not wanted:
            return
        if os.geteuid() != 0:
            raise SetupError("trees of other systems need root (chroot): sudo make test-systems; without: SYSTEMS=host")
        if shutil.which("debootstrap") is None:
            raise SetupError("no debootstrap, which makes the trees: apt-get install debootstrap")
        for name in wanted:
            DEBIANS[name].check()


def of_library(tests: str) -> bool:
    """Whether these are the set ``library``, or files and folders that are in it."""
    outside = tuple(f"tests/{name}" for name in ELSEWHERE)
    return tests not in ("all", "no-live") and not any(word.startswith(outside) for word in tests.split())


def pytest_options(tests: str) -> str:
    """What pytest is told for a word of :data:`SETS`, or for what stands in for one."""
    return SETS.get(tests, tests)
