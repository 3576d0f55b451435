# SPDX-License-Identifier: Apache-2.0
"""What guests are made of, out of Debian packages: no root, nothing installed, fetched once."""

from __future__ import annotations

import lzma
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KERNEL = "linux-image-cloud-amd64"
DOM0_KERNEL = "linux-image-amd64"
ARM64 = ":arm64"
"""Behind a package's name: for that processor, whatever the system's is."""
ARM64_KERNEL = f"linux-image-cloud-arm64{ARM64}"
METAPACKAGES = (KERNEL, DOM0_KERNEL, ARM64_KERNEL)
KERNEL_PACKAGES = ("linux-image-", "linux-binary-")
"""What a kernel's metapackage leads to: the image, and where that has only scripts (sid), the kernel itself."""
KERNEL_FILES = ("boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz")
INSTALLED_BUSYBOX = (Path("/bin/busybox"), Path("/usr/bin/busybox"))


class Unobtainable(Exception):
    """A file that no package would give; the text says why."""


def cache_directory() -> Path:
    """Where fetched files stay: the user's cache, or build/live-cache when the home cannot be written."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    for directory in (Path(base) / "libmicrovmi", ROOT / "build" / "live-cache"):
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(directory, os.W_OK):
            return directory
    raise Unobtainable("no directory for the guest's kernel: neither the user's cache nor build/ can be written")


def kernel() -> Path:
    """The guest's kernel: the file MICROVMI_LIVE_KERNEL names, or Debian's small one for clouds."""
    given = os.environ.get("MICROVMI_LIVE_KERNEL")
    if given:
        return Path(given)
    cached = sorted(cache_directory().glob("vmlinuz-*"))
    return cached[-1] if cached else _fetch(KERNEL, *KERNEL_FILES)


def module(kernel: Path, place: str) -> bytes:
    """A module of that kernel, which is one of a package: ``place`` is its path below ``kernel``, without an ending."""
    version = kernel.name.removeprefix("vmlinuz-")
    folder = cache_directory() / f"modules-{version}"
    folder.mkdir(exist_ok=True)
    cached = sorted(folder.glob(f"{Path(place).name}.ko*"))
    path = cached[0] if cached else _fetch_module(version, f"kernel/{place}.ko*", folder)
    return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()


def _fetch_module(version: str, pattern: str, folder: Path) -> Path:
    """Debian has modules in packages of their own since Linux 7."""
    try:
        return _fetch(f"linux-image-{version}", pattern, folder=folder)
    except Unobtainable:
        return _fetch(f"linux-modules-{version}", pattern, folder=folder)


def busybox() -> Path:
    """A statically linked busybox."""
    for path in (*INSTALLED_BUSYBOX, cache_directory() / "busybox"):
        if path.exists() and _is_static(path):
            return path
    return _fetch("busybox-static", "bin/busybox", "usr/bin/busybox")


def arm64_files() -> tuple[Path, Path]:
    """Debian's kernel for clouds, and a statically linked busybox, of AArch64."""
    folder = cache_directory() / "arm64"  # not beside kernels of x86
    folder.mkdir(exist_ok=True)
    kernels, busybox = sorted(folder.glob("vmlinuz-*")), folder / "busybox"
    if not busybox.exists():
        _fetch(f"busybox-static{ARM64}", "bin/busybox", "usr/bin/busybox", folder=folder)
    return kernels[-1] if kernels else _fetch(ARM64_KERNEL, *KERNEL_FILES, folder=folder), busybox


def archives(*names: str) -> list[Path]:
    """The packages of these names as files, each downloaded once."""
    folder = cache_directory() / "packages"
    folder.mkdir(exist_ok=True)
    wanted = [name for name in names if not (folder / f"{name}.deb").exists()]
    if wanted:
        with tempfile.TemporaryDirectory(dir=folder) as work:
            for name, archive in zip(wanted, _download(wanted, Path(work)), strict=True):
                archive.replace(folder / f"{name}.deb")
    return [folder / f"{name}.deb" for name in names]


def unpack(archive: Path, target: Path, *patterns: str) -> None:
    """Put those files of a package into ``target`` whose paths (``./boot/...``) match a pattern; ``*`` is anything."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as source:
        command = ["tar", "-x", "-C", str(target), "--wildcards", "--no-same-owner", *patterns]
        done = subprocess.run(command, stdin=source.stdout, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise Unobtainable(f"{archive.name} does not unpack: {done.stderr.strip()[-300:]}")


def _is_static(path: Path) -> bool:
    """Whether no program interpreter (ld.so) is named in the first page of an ELF file."""
    with path.open("rb") as file:
        head = file.read(4096)
    return head.startswith(b"\x7fELF") and b"ld-linux" not in head


def _fetch(package: str, *patterns: str, folder: Path | None = None) -> Path:
    """Download a package and put its file whose path matches a pattern into the cache, whole or not at all."""
    with tempfile.TemporaryDirectory(dir=cache_directory()) as work:
        archive = _download([package], Path(work))[0]
        found = _unpack(archive, patterns, Path(work))
        return found.replace((folder or cache_directory()) / found.name)


def _download(packages: list[str], target: Path) -> list[Path]:
    """Fetch packages by the system's package lists, or by fresh ones of our own where those are missing or too old."""
    lists = target / "lists"
    lists.mkdir()
    own = ["-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={target}"]
    if any(package.endswith(ARM64) for package in packages):
        own += ["-o", "APT::Architectures::=amd64", "-o", "APT::Architectures::=arm64"]
    try:
        return download_with([], packages, target)
    except Unobtainable:
        run(["apt-get", *own, "-o", "APT::Sandbox::User=root", "-q", "update"])  # another cannot enter our folder
        return download_with(own, packages, target)


def download_with(options: list[str], packages: list[str], target: Path) -> list[Path]:
    """Fetch packages into ``target``; ``options`` are apt's."""
    names = [_concrete(options, package) for package in packages]
    run(["apt-get", *options, "-q", "download", *names], cwd=target)
    return [next(target.glob(f"{name.removesuffix(ARM64)}_*.deb")) for name in names]


def _concrete(options: list[str], package: str) -> str:
    """The package itself, or for a kernel's metapackage the one that has the kernel, to which its dependencies lead."""
    if package not in METAPACKAGES:
        return package
    for prefix in KERNEL_PACKAGES:
        lines = [line.strip() for line in run(["apt-cache", *options, "depends", package]).splitlines()]
        wanted = f"Depends: {prefix}"
        package = next((line.removeprefix("Depends: ") for line in lines if line.startswith(wanted)), package)
    if package in METAPACKAGES:
        raise Unobtainable(f"{package} depends on no kernel")
    return package


def _unpack(archive: Path, patterns: tuple[str, ...], target: Path) -> Path:
    """Write the file of a package whose path matches a pattern into ``target``; a kernel's name has its version."""
    content = target / "content.tar"
    with content.open("wb") as stream:
        subprocess.run(["dpkg-deb", "--fsys-tarfile", archive], stdout=stream, check=True, timeout=120)
    with tarfile.open(content) as tar:
        for member in tar:
            inside = Path(member.name.removeprefix("./"))
            source = tar.extractfile(member) if any(map(inside.match, patterns)) else None
            if source is not None:
                name = f"vmlinuz-{inside.parent.name}" if inside.name == "vmlinuz" else inside.name
                with source, (target / name).open("wb") as file:
                    shutil.copyfileobj(source, file)
                (target / name).chmod(0o755)
                return target / name
    raise Unobtainable(f"{archive.name} holds no {' or '.join(patterns)}")


def unpack_kernel(archive: Path, target: Path) -> Path:
    """Write the kernel of a package into ``target``."""
    return _unpack(archive, KERNEL_FILES, target)


def run(command: list[str], cwd: Path | None = None) -> str:
    """What a command prints. Raises ``Unobtainable`` unless it ends well within three minutes."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=180)
    except FileNotFoundError:
        raise Unobtainable(f"no {command[0]}: set MICROVMI_LIVE_KERNEL to the file of a kernel") from None
    except subprocess.TimeoutExpired:
        raise Unobtainable(f"{' '.join(command)}: no end after 180 s") from None
    if done.returncode != 0:
        raise Unobtainable(f"{' '.join(command)}: {done.stderr.strip()[-300:]}")
    return done.stdout
