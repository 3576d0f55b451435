# SPDX-License-Identifier: Apache-2.0
"""``make install`` and ``make uninstall``: what is laid down, where, and taken away again without a trace.

``python -m libmicrovmi_py._native.laying install|uninstall BUILD DESTDIR PREFIX LIBDIR INCLUDEDIR BINDIR DATADIR``

A record beside our modules has all files, and the folders that were not there before. An install over another one
begins from its record, so nothing of an older version stays; one that fails leaves a record of both. Everybody can read
what is laid down, whatever the umask is.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from libmicrovmi_py._native import forcompilers, headerpages, headertext, readable
from libmicrovmi_py.command import laid
from libmicrovmi_py.version import __version__

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = "libmicrovmi.so"
RECORD = ".laid"
MODULE = Path("libmicrovmi_py", "_direct.abi3.so")
_NOT_LAID = {".ready"}


@dataclass(frozen=True)
class Place:
    """Where to: absolute folders, and what stands before all of them while a package is made."""

    destdir: str
    prefix: str
    libdir: str
    includedir: str
    bindir: str
    datadir: str

    def __post_init__(self) -> None:
        for name in ("prefix", "libdir", "includedir", "bindir", "datadir"):
            folder = getattr(self, name)
            if not folder.startswith("/"):
                raise ValueError(f"{name.upper()}={folder}: has to be an absolute path")
            if found := sorted(set(folder) & set(forcompilers.UNSPEAKABLE)):
                raise ValueError(
                    f"{name.upper()}={folder}: pkg-config and CMake cannot tell {found[0]!r}; choose another"
                )

    @property
    def private(self) -> Path:
        """The folder of our modules."""
        return self.real(f"{self.libdir}/libmicrovmi")

    def real(self, path: str) -> Path:
        """Where a file of the installed system lies now."""
        return Path(os.path.normpath(f"{os.path.abspath(self.destdir) if self.destdir else ''}{path}"))


@dataclass
class Record:
    """What an install has laid down: files beside the folder of our modules, and folders that it made."""

    files: list[str]
    folders: list[str]
    at: str
    """Where it was laid down. Who moved it has made the folders around it himself."""

    @classmethod
    def of(cls, place: Place) -> Record | None:
        """That of what is installed; ``None`` if nothing is, or by a version that kept none."""
        try:
            return cls(**json.loads((place.private / RECORD).read_text()))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, TypeError) as err:
            raise ValueError(f"{place.private / RECORD}: not a record of make install: {err}") from err

    def keep(self, folder: Path) -> None:
        _write(folder / RECORD, json.dumps(vars(self), indent=1).encode(), 0o644)


def install(place: Place, build: Path) -> None:
    """Lay everything down; a file takes another one's place at once, for programs that use that one."""
    before = Record.of(place) or Record([], [], str(place.private))
    texts, library = _texts(place), place.real(f"{place.libdir}/{LIBRARY}")
    paths = [library, *map(place.real, texts)]
    missing = _missing(path.parent for path in paths)
    told = sorted(os.path.relpath(path, place.private) for path in paths)
    record = Record(told, sorted({*before.folders, *map(str, missing)}), str(place.private))
    _make_folders(missing)
    try:
        _modules(place, build, replace(record, files=sorted({*before.files, *told})))
    except BaseException:
        _remove_empty(missing)
        raise
    for path, content in texts.items():
        _write(place.real(path), content.encode(), 0o755 if content.startswith("#!") else 0o644)
    _write(library, (build / "lib" / LIBRARY).read_bytes(), 0o755)
    _remove(place.private / old for old in before.files if old not in told)
    record.keep(place.private)
    readable.warn(place.real(place.libdir), readable.needed())
    print(f"libmicrovmi {__version__} is installed in {place.real(place.prefix)}")


def uninstall(place: Place) -> None:
    """Take away what :func:`install` laid down, and the folders that it made if nobody else has put anything there."""
    record = Record.of(place)
    if record is None:
        raise ValueError(
            f"{place.private / RECORD} is not there: nothing is installed in {place.real(place.prefix)}, or by a "
            f"version that kept no record; make install over it, then make uninstall"
        )
    _remove(place.private / path for path in record.files)
    shutil.rmtree(place.private)
    if record.at == str(place.private):
        _remove_empty(map(Path, record.folders))


def _texts(place: Place) -> dict[str, str]:
    """Every file but the library and our modules, by its path in the installed system."""
    headers = ROOT / "include"
    pages = headerpages.pages(headertext.read(headers / "libmicrovmi.h"))
    return {
        **{f"{place.includedir}/{path.name}": path.read_text() for path in sorted(headers.glob("libmicrovmi.h*"))},
        **forcompilers.texts(place.prefix, place.libdir, place.includedir),
        **{f"{place.datadir}/man/man3/{name}": text for name, text in pages.items()},
        **laid.files(place.bindir, place.datadir, place.libdir),
    }


def _modules(place: Place, build: Path, record: Record) -> None:
    """Our Python modules and cffi, with a record, in the place of those that are there."""
    new, old = (place.private.with_name(f"libmicrovmi.{word}") for word in ("new", "old"))
    for folder in (new, old):
        shutil.rmtree(folder, ignore_errors=True)
    try:
        shutil.copytree(build / "lib" / "libmicrovmi", new, ignore=lambda _, names: _NOT_LAID & set(names))
        shutil.copyfile(ROOT / MODULE, new / MODULE)
        for path in (new, *new.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.suffix == ".so" or path.stat().st_mode & 0o100 else 0o644)
        record.keep(new)
        if place.private.exists():
            place.private.rename(old)
        new.rename(place.private)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    if old.exists():
        shutil.rmtree(old)


def _missing(folders: Iterable[Path]) -> list[Path]:
    """Those that are not there, and of those above them, the highest first."""
    found = {path for folder in folders for path in (folder, *folder.parents) if not path.exists()}
    return sorted(found, key=lambda path: (len(path.parts), path))


def _make_folders(missing: Iterable[Path]) -> None:
    for path in missing:
        path.mkdir()
        path.chmod(0o755)


def _write(path: Path, content: bytes, mode: int) -> None:
    new = path.with_name(path.name + ".new")
    try:
        new.write_bytes(content)
        new.chmod(mode)
        new.rename(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        Path(os.path.normpath(path)).unlink(missing_ok=True)


def _remove_empty(folders: Iterable[Path]) -> None:
    """Of others' files that are in one nothing is said: that is as it should be."""
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()


def main(action: str, build: str, *folders: str) -> None:
    """Do it; what is in the way is told in one line."""
    try:
        place = Place(*folders)
        install(place, Path(build)) if action == "install" else uninstall(place)
    except ValueError as err:
        sys.exit(str(err))
    except shutil.Error as err:  # of several files: one is enough
        sys.exit("{1}: {2}".format(*err.args[0][0]))
    except OSError as err:
        way_out = f"; to write there may take sudo make {action}" if err.errno in (errno.EACCES, errno.EPERM) else ""
        sys.exit(f"{err.filename}: {err.strerror}{way_out}" if err.filename else f"{err}{way_out}")


if __name__ == "__main__":
    main(*sys.argv[1:])
