# SPDX-License-Identifier: Apache-2.0
"""What the dynamic linker sees of the library."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path


def dynamic_symbols(library: Path) -> set[str]:
    """The names that the library defines for others."""
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", "--format=posix", str(library)], capture_output=True, text=True, check=True
    )
    return {line.split()[0].split("@")[0] for line in listing.stdout.splitlines()}


def declared(header: Path) -> set[str]:
    """The names of the functions that the header declares."""
    text = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.DOTALL)
    return set(re.findall(r"\b(\w+)\([^()]*\);", text))


def dynamic_section(library: Path) -> str:
    return subprocess.run(["readelf", "-dW", str(library)], capture_output=True, text=True, check=True).stdout


def test_exactly_the_functions_of_the_header_are_exported(library_path: Path, include_dir: Path) -> None:
    assert dynamic_symbols(library_path) == declared(include_dir / "libmicrovmi.h")


def test_it_stays_loaded(library_path: Path) -> None:
    assert "NODELETE" in dynamic_section(library_path)


def test_existing_binaries_find_it_by_its_file_name(library_path: Path) -> None:
    assert "SONAME" not in dynamic_section(library_path)
