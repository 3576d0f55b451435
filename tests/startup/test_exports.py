# SPDX-License-Identifier: Apache-2.0
"""What the dynamic linker sees of the library."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

MAP = Path(__file__).resolve().parents[2] / "libmicrovmi_py" / "_native" / "exports.map"

OLD_CLIENT = """
#include <libmicrovmi.h>

int main(void)
{
    microvmi_destroy(NULL);
    return microvmi_get_driver_type(NULL) == MICROVMI_DRIVER_UNKNOWN ? 0 : 1;
}
"""
OLD_LIBRARY = """
#include <libmicrovmi.h>

void microvmi_destroy(void *context)
{
    (void)context;
}

enum DriverType microvmi_get_driver_type(void *context)
{
    return context == NULL ? MICROVMI_DRIVER_UNKNOWN : KVM;
}
"""


def exported(library: Path) -> set[tuple[str, str]]:
    """The version and the name of each function that the library defines for others."""
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", "--format=posix", str(library)], capture_output=True, text=True, check=True
    )
    symbols = [line.split()[:2] for line in listing.stdout.splitlines()]
    found = (name.partition("@@") for name, kind in symbols if kind != "A")
    return {(version, name) for name, _, version in found}


def declared(header: Path) -> set[tuple[str, str]]:
    """The functions that the header declares, with the version of their section: the frozen one is 0.4."""
    sections = re.split(r"\(since (\d+\.\d+)\.\d+\)\n \* =+ \*/", header.read_text())
    versions = ["0.4", *sections[1::2]]
    return {
        (f"MICROVMI_{version}", name)
        for version, section in zip(versions, sections[::2], strict=True)
        for name in re.findall(r"\b(\w+)\([^()]*\);", re.sub(r"/\*.*?\*/", "", section, flags=re.DOTALL))
    }


def listed(text: str) -> set[tuple[str, str]]:
    """What the version script names."""
    nodes = re.findall(r"^(MICROVMI_[\d.]+)\n\{\n    global:\n([^:}]*)", text, re.MULTILINE)
    return {(version, name) for version, names in nodes for name in re.findall(r"(\w+);", names)}


def dynamic_section(library: Path) -> str:
    return subprocess.run(["readelf", "-dW", str(library)], capture_output=True, text=True, check=True).stdout


def test_exactly_the_functions_of_the_header_are_exported(library_path: Path, include_dir: Path) -> None:
    functions = declared(include_dir / "libmicrovmi.h")
    assert listed(MAP.read_text()) == functions
    assert exported(library_path) == functions


def test_a_program_linked_before_there_were_versions_runs(
    tmp_path: Path, library_path: Path, include_dir: Path
) -> None:
    (tmp_path / "client.c").write_text(OLD_CLIENT)
    (tmp_path / "old.c").write_text(OLD_LIBRARY)
    old = tmp_path / "old" / "libmicrovmi.so"
    old.parent.mkdir()
    client = tmp_path / "client"
    build: list[str | Path] = [*shlex.split(os.environ.get("CC") or "cc"), "-I", include_dir, "-o"]
    subprocess.run([*build, old, "-shared", "-fPIC", tmp_path / "old.c"], check=True)
    subprocess.run([*build, client, tmp_path / "client.c", "-L", old.parent, "-lmicrovmi"], check=True)
    for folder in (old.parent, library_path.parent):
        ended = subprocess.run([client], env={"LD_LIBRARY_PATH": str(folder), "LD_BIND_NOW": "1"}, capture_output=True)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


def test_it_stays_loaded(library_path: Path) -> None:
    assert "NODELETE" in dynamic_section(library_path)


def test_every_program_asks_for_it_by_its_file_name(tmp_path: Path, library_path: Path, include_dir: Path) -> None:
    """Those that are linked with upstream's, which has no SONAME, do so; and those that were linked by a path."""
    assert "SONAME)             Library soname: [libmicrovmi.so]" in dynamic_section(library_path)
    (tmp_path / "client.c").write_text(OLD_CLIENT)
    compiler = shlex.split(os.environ.get("CC") or "cc")
    for number, linked in enumerate(([str(library_path)], ["-L", str(library_path.parent), "-lmicrovmi"])):
        client = tmp_path / f"client{number}"
        subprocess.run([*compiler, "-I", include_dir, tmp_path / "client.c", "-o", client, *linked], check=True)
        assert "(NEEDED)             Shared library: [libmicrovmi.so]" in dynamic_section(client)
