# SPDX-License-Identifier: Apache-2.0
"""The guest's kernel is found in the packages of every Debian; apt is played by a program, the packages are real."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from needs import missing

from . import packages

APT = """#!/bin/sh
# Plays apt-get and apt-cache: knows the packages of a folder, and nothing is to be updated.
folder={folder}
case "$(basename "$0") $*" in
"apt-cache depends "*)
    while [ $# -gt 1 ]; do shift; done
    echo "$1"
    dpkg-deb -f "$folder/${{1%:arm64}}"_1_all.deb Depends | tr , '\\n' | sed 's/^ */  Depends: /' ;;
"apt-get -q download "*)
    shift 2
    for name in "$@"; do cp "$folder/${{name%:arm64}}"_1_all.deb . || exit 100; done ;;
*) exit 100 ;;
esac
"""

IMAGE = "linux-image-9.9-cloud-amd64"
BINARY = "linux-binary-9.9-cloud-amd64"
BOOKWORM = {packages.KERNEL: (IMAGE, ""), IMAGE: ("kmod, linux-base", "boot/vmlinuz-9.9-cloud-amd64")}
SID = {
    packages.KERNEL: (f"linux-base-cloud-amd64, {IMAGE}", ""),
    IMAGE: (f"linux-base-9.9-cloud-amd64, {BINARY}, linux-modules-9.9-cloud-amd64", "usr/share/bug/vmlinuz-of-none"),
    BINARY: ("linux-base", "usr/lib/modules/9.9-cloud-amd64/vmlinuz"),
}


IMAGE_ARM64 = "linux-image-9.9-cloud-arm64"
ARM64 = {
    packages.ARM64_KERNEL.removesuffix(packages.ARM64): (f"{IMAGE_ARM64}:arm64", ""),
    IMAGE_ARM64: ("kmod", "boot/vmlinuz-9.9-cloud-arm64"),
    "busybox-static": ("", "bin/busybox"),
}


def _package(folder: Path, name: str, depends: str, content: str) -> None:
    """Write a package of one file, which holds its own path."""
    tree = folder / name
    (tree / "DEBIAN").mkdir(parents=True)
    lines = [f"Package: {name}", "Version: 1", "Architecture: all", "Maintainer: none", "Description: none"]
    lines += [f"Depends: {depends}"] if depends else []
    (tree / "DEBIAN" / "control").write_text("\n".join([*lines, ""]))
    if content:
        (tree / content).parent.mkdir(parents=True)
        (tree / content).write_text(content)
    target = folder / f"{name}_1_all.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tree, target], check=True, capture_output=True)


@pytest.mark.parametrize("known", [BOOKWORM, SID], ids=["bookworm", "sid"])
def test_the_kernel_is_found_where_the_packages_lead(
    known: dict[str, tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _play(known, tmp_path, monkeypatch)
    kernel = packages.kernel()
    assert kernel.name == "vmlinuz-9.9-cloud-amd64"
    assert kernel.read_text().split("/")[-1].startswith("vmlinuz")
    assert "of-none" not in kernel.read_text()
    assert packages.kernel() == kernel


def test_what_is_of_another_processor_lies_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _play({**BOOKWORM, **ARM64}, tmp_path, monkeypatch)
    kernel, busybox = packages.arm64_files()
    assert (kernel.read_text(), busybox.read_text()) == ("boot/vmlinuz-9.9-cloud-arm64", "bin/busybox")
    assert packages.kernel().name == "vmlinuz-9.9-cloud-amd64"
    assert packages.arm64_files() == (kernel, busybox)


def _play(known: dict[str, tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an apt that knows these packages, and an empty cache."""
    if shutil.which("dpkg-deb") is None:
        missing("no packages without dpkg-deb; to enable: a Debian, or set MICROVMI_LIVE_KERNEL for the guests alone")
    for name, (depends, content) in known.items():
        _package(tmp_path, name, depends, content)
    for program in ("apt-get", "apt-cache"):
        (tmp_path / program).write_text(APT.format(folder=tmp_path))
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MICROVMI_LIVE_KERNEL", raising=False)
