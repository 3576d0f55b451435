# SPDX-License-Identifier: Apache-2.0
"""Xen, its dom0 kernel, and dom0's first file system without anything of this project: made once, then kept."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from live import cpio, packages
from live.cpio import Archive

from .binaries import is_elf, libraries, stack_unwinder

HERE = Path(__file__).resolve().parent
XEN = "4.17"
TRIPLET = "x86_64-linux-gnu"
TOOLS = ("xl", "xenstored", "xenconsoled", "xenconsole", "xen-init-dom0", "libxl-save-helper")
CLIENTS = ("xenstore-ls", "xenstore-read", "xenstore-write", "xenstore-list")
MODULES = ("xen-privcmd", "xen-evtchn", "xen-gntdev", "xen-gntalloc", "xenfs")
KERNEL_PACKAGE = packages.DOM0_KERNEL
XEN_PACKAGES = (
    *(f"xen-hypervisor-{XEN}-amd64", f"xen-utils-{XEN}", "xen-utils-common", "xenstore-utils", f"libxenmisc{XEN}"),
    *("libxencall1", "libxendevicemodel1", "libxenevtchn1", "libxenforeignmemory1", "libxengnttab1", "libxenhypfs1"),
    *("libxenstore4", "libxentoolcore1", "libxentoollog1", "libyajl2"),
)
NOT_FOR_DOM0 = re.compile(
    r"/(test|tests|idlelib|lib2to3|tkinter|turtledemo|ensurepip|distutils|pydoc_data|(site|dist)-packages|config-[^/]*)/"
    r"|\.opt-[12]\.pyc$|/_test[^/]*\.so$"
)


@dataclass(frozen=True)
class Base:
    """Files that a lab boots from."""

    xen: Path
    kernel: Path
    initrd: Path
    contents: Path
    """A list of what is in ``initrd``; written last."""

    def has(self, path: Path) -> bool:
        """Whether ``initrd`` has a file."""
        return str(path) in self.contents.read_text().splitlines()


def obtain(folder: Path, progress: Callable[[str], None]) -> Base:
    """The base in ``folder``, made anew if what it consists of changed. Raises ``Unobtainable``."""
    progress("packages")
    archives = packages.archives(*XEN_PACKAGES, KERNEL_PACKAGE)
    place = folder / f"base-{_digest(archives)}"
    base = Base(place / "xen", place / "vmlinux", place / "base.img", place / "contents")
    if not base.contents.exists():
        progress("dom0's first file system")
        for old in folder.glob("base-*"):
            shutil.rmtree(old)
        place.mkdir(parents=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            _make(base, archives, Path(work))
    return base


def _digest(archives: Iterable[Path]) -> str:
    """Of everything the base is made of: packages, the Python, the files of this folder that go into it, its rules."""
    digest = hashlib.sha256()
    for path in [*archives, *_python_files(), packages.busybox()]:
        status = path.stat()
        digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    rules = [Path(__file__), Path(cpio.__file__), HERE / "binaries.py"]
    for path in [*rules, HERE / "inside" / "init", HERE / "inside" / "linux-init"]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _make(base: Base, archives: list[Path], root: Path) -> None:
    for package in archives[:-1]:
        packages.unpack(package, root)
    packages.unpack(archives[-1], root, "./boot/vmlinuz-*", *(f"*/{name}.ko" for name in MODULES))
    base.xen.write_bytes(gzip.decompress((root / f"boot/xen-{XEN}-amd64.gz").read_bytes()))
    _extract_kernel(next(root.glob("boot/vmlinuz-*")), base.kernel)
    archive = Archive()
    _add_system(archive, root)
    _add_linux_guest(archive, base.kernel)
    programs = [*_python_files(), *(root / path for path in _xen_programs())]
    needed = libraries([path for path in programs if is_elf(path)], root / "usr/lib" / TRIPLET)
    for path in [*needed, stack_unwinder()]:
        archive.copy(path, _inside(path, root))
    for path in _python_files():
        archive.copy(path)
    base.initrd.write_bytes(_padded(gzip.compress(archive.to_bytes(), 1)))
    base.contents.write_text("\n".join(archive.paths))


def _add_system(archive: Archive, root: Path) -> None:
    """Busybox, the first process, kernel modules, the toolstack, and every library of Xen by its two names."""
    archive.device("/dev/console", 5, 1)
    for name in ("/proc", "/sys", "/dev", "/tmp", "/run", "/var/lib/xen"):
        archive.directory(name)
    archive.copy(packages.busybox(), "/bin/busybox")
    init = (HERE / "inside" / "init").read_text().replace("XEN_VERSION", XEN)
    archive.file("/init", init.encode(), program=True)
    for name in MODULES:
        archive.copy(next(root.glob(f"lib/modules/*/kernel/**/{name}.ko")), f"/modules/{name}.ko")
    for path in _xen_programs():
        archive.copy(root / path, f"/{path}")
    archive.copy(root / "etc/xen/xl.conf", "/etc/xen/xl.conf")
    for library in sorted(root.glob(f"usr/lib/{TRIPLET}/lib*.so.*")):
        if library.is_symlink():
            archive.link(_inside(library, root), os.readlink(library))
        else:
            archive.copy(library, _inside(library, root))


def _xen_programs() -> list[str]:
    return [*(f"usr/lib/xen-{XEN}/bin/{name}" for name in TOOLS), *(f"usr/bin/{name}" for name in CLIENTS)]


def _add_linux_guest(archive: Archive, kernel: Path) -> None:
    guest = Archive()
    for name in ("/proc", "/dev"):
        guest.directory(name)
    guest.device("/dev/console", 5, 1)
    guest.copy(packages.busybox(), "/bin/busybox")
    guest.file("/init", (HERE / "inside" / "linux-init").read_bytes(), program=True)
    archive.file("/guests/linux.cpio", guest.to_bytes())
    archive.file("/guests/vmlinux.gz", gzip.compress(kernel.read_bytes(), 1))


def _extract_kernel(image: Path, target: Path) -> None:
    """The kernel proper out of its xz-packed image, so that nothing has to be unpacked by an emulated processor."""
    data = image.read_bytes()
    start = data.index(b"\xfd7zXZ\0")
    target.write_bytes(lzma.LZMADecompressor().decompress(data[start:]))
    subprocess.run(["strip", target], check=True, timeout=60)


def _python_files() -> list[Path]:
    """The interpreter that the library is built for, and its standard library."""
    standard = Path(os.__file__).parent
    files = [path for path in sorted(standard.rglob("*")) if path.is_file()]
    kept = [path for path in files if not NOT_FOR_DOM0.search(f"/{path.relative_to(standard)}")]
    return [Path(os.path.realpath(sys.executable)), *kept]


def _inside(path: Path, root: Path) -> str:
    """Where a file is in dom0: as on this machine, what was unpacked as if it were installed."""
    return f"/{path.relative_to(root)}" if path.is_relative_to(root) else str(path)


def _padded(data: bytes) -> bytes:
    """Another archive may follow at a multiple of 4 bytes."""
    return data + bytes(-len(data) % 4)
