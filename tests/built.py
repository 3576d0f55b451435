# SPDX-License-Identifier: Apache-2.0
"""Whether ``build/`` was made from the sources that are there, by what is in them, not by their dates."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

LIBRARY = "build/lib/libmicrovmi.so"
PACKAGE = "libmicrovmi_py"
WATCHER = f"{PACKAGE}/microvmi-watcher"
INPUTS = "build/native.inputs"
"""What the Makefile keeps of a build in C: a line of flags, then the sums that ``cksum`` prints of its sources."""


def outdated(root: Path) -> str | None:
    """One line that says what is not as it was built, and the way out; ``None`` if all is."""
    found = next(_changes(root), None)
    return None if found is None else f"build/ is not made of these sources ({found}): run make lib"


def _changes(root: Path) -> Iterator[str]:
    """What differs, the first of each kind is enough."""
    modules = sorted((root / PACKAGE).glob("_*.abi3.so"))
    if not modules or not (root / WATCHER).exists() or not (root / LIBRARY).exists() or not (root / INPUTS).exists():
        yield "nothing is built"
        return
    yield from _changed_python(root)
    yield from _changed_c(root)
    # A build that failed has taken the sums down, and left the products of the last one.
    kept = (root / INPUTS).stat().st_mtime_ns
    newest = max(modules, key=lambda path: path.stat().st_mtime_ns)  # a module that had another name may be left
    yield from (product.name for product in (root / LIBRARY, newest) if product.stat().st_mtime_ns < kept)


def _changed_python(root: Path) -> Iterator[str]:
    """Python files that are not what stands beside the library, on either side."""
    there, here = root / "build/lib/libmicrovmi" / PACKAGE, root / PACKAGE
    names = {path.relative_to(place) for place in (there, here) for path in place.rglob("*.py")}
    for name in sorted(names):
        if name.parts[0] not in ("_native", "include", "lib") and _content(there / name) != _content(here / name):
            yield f"{PACKAGE}/{name}"


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _changed_c(root: Path) -> Iterator[str]:
    """Sources in C, and what makes C, whose sums are others, or that were not there."""
    taken = (root / INPUTS).read_text().splitlines()[1:]
    names = [line.split(" ", 2)[2] for line in taken]
    there = [name for name in names if (root / name).exists()]
    system = {"PATH": os.defpath}  # whatever a test has made of PATH
    done = subprocess.run(["cksum", *there], cwd=root, env=system, capture_output=True, text=True, check=True)
    sums = {line.split(" ", 2)[2]: line for line in done.stdout.splitlines()}
    yield from (name for name, line in zip(names, taken, strict=True) if sums.get(name) != line)
    native = root / PACKAGE / "_native"
    sources = {f"{PACKAGE}/_native/{path.name}" for ending in ("*.c", "*.h") for path in native.glob(ending)}
    yield from sorted(sources - set(names))
