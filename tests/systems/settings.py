# SPDX-License-Identifier: Apache-2.0
"""What is to be run and where, out of the environment; what is missing for it, with the command that brings it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RELEASES = ("bookworm", "trixie", "sid")
HOST = "host"
"""This machine: for Pythons that no Debian of the others has."""

HOST_PYTHONS = ("python3.10", "python3.12")
PASSED_ON = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "PIP_INDEX_URL")


class SetupError(Exception):
    """Why it cannot be done, and what to do about it; one line."""


@dataclass(frozen=True)
class Settings:
    """``pythons`` is empty for all that are found; ``folder`` keeps the trees, what was downloaded, and the logs."""

    systems: tuple[str, ...]
    pythons: tuple[str, ...]
    live: bool
    folder: Path
    mirror: str
    network: Mapping[str, str]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Raises :class:`SetupError` for a system that is not known."""
        systems = tuple(environment.get("SYSTEMS", "").split()) or (*RELEASES, HOST)
        for name in systems:
            if name not in (*RELEASES, HOST):
                raise SetupError(f"SYSTEMS={name}: no such system; it takes {' '.join((*RELEASES, HOST))}")
        cache = environment.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        folder = environment.get("MICROVMI_SYSTEMS_DIR") or f"{cache}/libmicrovmi/systems"
        return cls(
            systems=systems,
            pythons=tuple(environment.get("PYTHONS", "").split()),
            live=environment.get("LIVE", "yes") != "no",
            folder=Path(folder).resolve(),
            mirror=environment.get("DEBIAN_MIRROR") or "http://deb.debian.org/debian",
            network={name: environment[name] for name in PASSED_ON if name in environment},
        )

    def check(self) -> None:
        """Raises :class:`SetupError` if this user or this machine cannot make trees."""
        if all(name == HOST for name in self.systems):
            return
        if os.geteuid() != 0:
            raise SetupError("trees of other systems need root (chroot): sudo make test-systems; without: SYSTEMS=host")
        if shutil.which("debootstrap") is None:
            raise SetupError("no debootstrap, which makes the trees: apt-get install debootstrap")
