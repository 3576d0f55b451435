# SPDX-License-Identifier: Apache-2.0
"""docs/migration.md names what there is: every function of LibVMI once, and of ours none that does not exist."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from pathlib import Path

import pytest

from libmicrovmi_py import Microvmi
from libmicrovmi_py.command import known
from libmicrovmi_py.linux.btf import Structure, Types
from libmicrovmi_py.linux.kallsyms import Symbols
from libmicrovmi_py.linux.kernel import Kernel
from libmicrovmi_py.linux.tasks import Task
from libmicrovmi_py.memory.virtual import AddressSpace

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "migration.md").read_text()
HEADER = (ROOT / "include" / "libmicrovmi.h").read_text()
CLASSES = {kind.__name__: kind for kind in (Microvmi, AddressSpace, Kernel, Symbols, Task, Structure, Types)}


def libvmi() -> list[str]:
    """The functions of LibVMI in the first columns of its tables."""
    tables = PAGE.split("<!-- begin of LibVMI's functions")[1].split("<!-- end of LibVMI's functions")[0]
    firsts = [line.split("|")[1] for line in tables.splitlines() if line.startswith("|")]
    return [name for first in firsts for name in re.findall(r"`((?:vmi|peparse)_\w+)`", first)]


def test_every_function_of_libvmi_is_named_once() -> None:
    """The page says how many there are; a row that is taken out, or stands twice, shows."""
    told = re.search(r"installs, with (\d+) functions", PAGE)
    assert told
    assert {name: count for name, count in Counter(libvmi()).items() if count > 1} == {}
    assert len(libvmi()) == int(told[1])


def test_every_row_says_what_there_is_or_that_there_is_nothing() -> None:
    tables = PAGE.split("<!-- begin of LibVMI's functions")[1].split("<!-- end of LibVMI's functions")[0]
    for line in tables.splitlines():
        if line.startswith("| `"):
            assert re.match(r"\s*(none\b|the same two|`)", line.split("|")[2]), line


def test_every_function_of_the_frozen_api_is_in_the_table() -> None:
    frozen = HEADER.split("enum microvmi_error {")[0]
    names = set(re.findall(r"\b(microvmi_\w+|rs_cstring_free)\(", re.sub(r"/\*.*?\*/", "", frozen, flags=re.DOTALL)))
    assert names
    assert {name for name in names if f"| `{name}`" not in PAGE and f", `{name}` |" not in PAGE} == set()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:microvmi|MICROVMI)_\w+)`", PAGE)) - {"microvmi_"}))
def test_every_name_of_the_c_api_exists(name: str) -> None:
    if name != "MICROVMI_URI":
        assert re.search(rf"\b{name}\b", HEADER)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([A-Z]\w+\.\w+)`", PAGE))))
def test_every_name_of_the_python_api_exists(name: str) -> None:
    kind, member = name.split(".")
    annotations = getattr(CLASSES[kind], "__annotations__", {})
    made = re.search(rf"self\.{member}\b.* = ", Path(inspect.getfile(CLASSES[kind])).read_text())
    assert hasattr(CLASSES[kind], member) or member in annotations or made


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`microvmi ([a-z-]+)[` ]", PAGE))))
def test_every_subcommand_exists(name: str) -> None:
    assert name in known.names()
