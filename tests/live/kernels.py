# SPDX-License-Identifier: Apache-2.0
"""Kernels of other Debians than the one the tests run on, each fetched once by apt with lists of its own."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import packages
from .packages import Unobtainable

MIRRORS = ("http://deb.debian.org/debian", "http://archive.debian.org/debian")
"""Where a release is, and where it goes in the end."""


@dataclass(frozen=True)
class Release:
    """A Debian by the name of its suite, and the processor. The one that the tests fetch anyway has no suite."""

    suite: str = ""
    arm64: bool = False

    def __str__(self) -> str:
        return f"{self.suite or 'common'}-{'arm64' if self.arm64 else 'amd64'}"


IN_CI = [Release(), Release(arm64=True)]
OTHERS = [Release("bullseye"), Release("trixie"), Release("sid"), Release("trixie", arm64=True)]


def kernel_of(release: Release) -> Path:
    """The kernel for clouds of a release. Raises ``Unobtainable``."""
    if not release.suite:
        return packages.arm64_files()[0] if release.arm64 else packages.kernel()
    folder = packages.cache_directory() / str(release)
    folder.mkdir(exist_ok=True)
    cached = sorted(folder.glob("vmlinuz-*"))
    return cached[-1] if cached else _fetch(release, folder)


def _fetch(release: Release, folder: Path) -> Path:
    reasons = []
    for mirror in MIRRORS:
        with tempfile.TemporaryDirectory(dir=packages.cache_directory()) as work:
            try:
                return _fetch_from(mirror, release, Path(work), folder)
            except Unobtainable as err:
                reasons.append(str(err))
    raise Unobtainable("; ".join(reasons))


def _fetch_from(mirror: str, release: Release, work: Path, folder: Path) -> Path:
    lists, sources = work / "lists", work / "sources.list"
    lists.mkdir()
    sources.write_text(f"deb {mirror} {release.suite} main\n")
    own = [f"Dir::Etc::sourcelist={sources}", "Dir::Etc::sourceparts=-", f"Dir::State::lists={lists}"]
    own += [f"Dir::Cache={work}", "APT::Sandbox::User=root", "APT::Architectures::=amd64", "Acquire::Languages=none"]
    own += ["APT::Architectures::=arm64"] if release.arm64 else []
    options = [word for option in own for word in ("-o", option)]
    packages.run(["apt-get", *options, "-q", "update"])
    name = packages.ARM64_KERNEL if release.arm64 else packages.KERNEL
    archive = packages.download_with(options, [name], work)[0]
    found = packages.unpack_kernel(archive, work)
    return found.replace(folder / found.name)


def busybox_of(release: Release) -> Path:
    """A statically linked busybox for its processor."""
    return packages.arm64_files()[1] if release.arm64 else packages.busybox()
