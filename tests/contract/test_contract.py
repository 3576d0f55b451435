# SPDX-License-Identifier: Apache-2.0
"""What every driver is asked for by its registration alone: a stand, a page, a name, a type, one place in the tree."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from contract.stock import drivers, drivers_of_the_tree, stand_files, stands

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.base import Driver, SupportsFrames, SupportsRegions
from libmicrovmi_py.model import DriverType

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "drivers"

each_driver = pytest.mark.parametrize("name", drivers())
each_of_the_tree = pytest.mark.parametrize("name", drivers_of_the_tree())


@each_driver
def test_every_driver_has_a_stand(name: str) -> None:
    assert name in stand_files(), f"write tests/contract/stands/{name}.py: docs/testing.md tells how"
    assert name in stands(), f"tests/contract/stands/{name}.py has no function stand(folder)"


@pytest.mark.parametrize("name", stand_files())
def test_every_stand_has_a_driver(name: str) -> None:
    assert name in drivers(), f"tests/contract/stands/{name}.py is for a driver that the tree does not have"


# ----------------------------------------------------------------------------------------------------------- name, type


@each_driver
def test_names_are_words_and_parameters_have_help(name: str) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9]*", name)
    for key, line in drivers()[name].parameters.items():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", key)
        assert line.strip()
        assert line.isprintable(), f"the help of {key} is one line"


def test_a_context_tells_its_driver(lib: Any, context: int, driver: type[Driver]) -> None:
    assert lib.microvmi_get_driver_name(context) == driver.name.encode()
    assert lib.microvmi_get_driver_type(context) == driver.type
    assert DriverType(lib.microvmi_get_driver_type(context)) is driver.type


def test_so_does_the_object(machine: Microvmi, driver: type[Driver]) -> None:
    assert isinstance(machine.driver, driver)
    assert machine.driver.name == driver.name
    assert machine.driver_type is driver.type
    assert isinstance(machine.driver, (SupportsRegions, SupportsFrames))


# ------------------------------------------------------------------------------------------------------------- the page


def needs_of(page: str) -> str:
    """What a page says that its driver needs: after a line, or under a heading, that begins with that word."""
    found = re.search(r"^(?:#+ )?(?:What it )?[Nn]eeds\b(.*?)(?=^#|\Z)", page, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


@each_of_the_tree
def test_every_driver_has_a_page_that_tells_what_it_needs(name: str) -> None:
    page = PAGES / f"{name}.md"
    assert page.exists(), f"write docs/drivers/{name}.md"
    needs = needs_of(page.read_text())
    assert needs, f"docs/drivers/{name}.md has no paragraph that begins with Needs"
    assert "nothing" in needs or "`" in needs, f"docs/drivers/{name}.md names what is needed, but no command for it"


@each_of_the_tree
def test_the_page_names_every_parameter(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text()
    assert [key for key in drivers()[name].parameters if f"`{key}`" not in page] == []


def test_no_page_is_without_a_driver() -> None:
    assert [page.stem for page in PAGES.glob("*.md") if page.stem not in drivers()] == []


# --------------------------------------------------------------------------------------------- one place in the tree


def tree() -> list[str]:
    """The files of the tree that are not the tests' and tell no history."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    names = [name for name in listed.stdout.split("\n") if name] or [
        str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.suffix in (".py", ".md", ".c", ".h")
    ]
    others = ("tests/", "build/", "README.md", "CHANGELOG.md")
    return [name for name in names if not name.startswith(others) and (ROOT / name).is_file()]


def _without_tests(path: Path) -> str:
    """The text of a file, but for the paths of tests in it."""
    return re.sub(r"\btests/\S+", "", path.read_text(errors="replace"))


@each_of_the_tree
def test_nothing_else_in_the_tree_names_a_driver(name: str) -> None:
    driver = drivers()[name]
    module = ".".join(driver.__module__.split(".")[:3])
    place = module.replace(".", "/")
    own = (f"{place}.py", f"{place}/", f"docs/drivers/{name}.md")
    names = re.compile(rf"\b(?:{driver.__name__}|drivers[./]{module.rpartition('.')[2]})\b(?!\.md)")
    found = [path for path in tree() if not path.startswith(own) and names.search(_without_tests(ROOT / path))]
    assert found == [], f"{driver.__name__} or its module"
