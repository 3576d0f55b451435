# SPDX-License-Identifier: Apache-2.0
"""``make install`` and ``make uninstall``: what is laid down, where, and taken away again without a trace.

``python -m libmicrovmi_py._native.laying install|uninstall BUILD DESTDIR PREFIX LIBDIR INCLUDEDIR BINDIR DATADIR``

A record beside our modules has all files, and the folders that were not there before. An install over another one
begins from its record, so nothing of an older version stays. Everybody can read what is laid down, whatever the umask
is.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
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

    def keep(self, place: Place) -> None:
        _write(place.private / RECORD, json.dumps(vars(self), indent=1).encode(), 0o644)


def install(place: Place, build: Path) -> None:
    """Lay everything down; a file takes another one's place at once, for programs that use that one."""
    before = Record.of(place) or Record([], [], str(place.private))
    texts, library = _texts(place), place.real(f"{place.libdir}/{LIBRARY}")
    made = _make_folders(sorted({path.parent for path in (library, *map(place.real, texts))}))
    _modules(place, build)
    for path, content in texts.items():
        _write(place.real(path), content.encode(), 0o755 if content.startswith("#!") else 0o644)
    _write(library, (build / "lib" / LIBRARY).read_bytes(), 0o755)
    told = sorted(os.path.relpath(path, place.private) for path in (library, *map(place.real, texts)))
    _remove(place.private / old for old in before.files if old not in told)
    Record(told, sorted({*before.folders, *made}), str(place.private)).keep(place)
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
        for folder in sorted(record.folders, key=len, reverse=True):
            _remove_empty(Path(folder))


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


def _modules(place: Place, build: Path) -> None:
    """Our Python modules and cffi, in the place of those that are there."""
    new = place.private.with_name("libmicrovmi.new")
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(build / "lib" / "libmicrovmi", new, ignore=lambda _, names: _NOT_LAID & set(names))
    shutil.copyfile(ROOT / MODULE, new / MODULE)
    for path in (new, *new.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.suffix == ".so" or path.stat().st_mode & 0o100 else 0o644)
    if place.private.exists():
        shutil.rmtree(place.private)
    new.rename(place.private)


def _make_folders(folders: Iterable[Path]) -> list[str]:
    """Make those that are missing, with those above them; which that were."""
    made: list[Path] = []
    for folder in folders:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        for path in reversed(missing):
            path.mkdir()
            path.chmod(0o755)
        made += missing
    return [str(path) for path in made]


def _write(path: Path, content: bytes, mode: int) -> None:
    new = path.with_name(path.name + ".new")
    new.write_bytes(content)
    new.chmod(mode)
    new.rename(path)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        Path(os.path.normpath(path)).unlink(missing_ok=True)


def _remove_empty(folder: Path) -> None:
    """Of others' files that are in it nothing is said: that is as it should be."""
    if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        folder.rmdir()


def main(action: str, build: str, *folders: str) -> None:
    """Do it; what is in the way is told in one line."""
    try:
        place = Place(*folders)
        install(place, Path(build)) if action == "install" else uninstall(place)
    except ValueError as err:
        sys.exit(str(err))
    except OSError as err:
        sys.exit(f"{err.filename}: {err.strerror}; to write there may take sudo make {action}")


if __name__ == "__main__":
    main(*sys.argv[1:])
