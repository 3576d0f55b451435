# SPDX-License-Identifier: Apache-2.0
"""``make site`` builds the documentation: no link leads nowhere, and the reference has all that there is."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from needs import ROOT, missing

import libmicrovmi_py
from libmicrovmi_py.command import known

PAGES = sorted(path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md") if "website" not in path.parts)


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built without a network as the command of the Makefile does; a warning of Sphinx's is a failure."""
    if any(importlib.util.find_spec(name) is None for name in ("sphinx", "myst_parser", "furo")):
        missing("no Sphinx; to enable: make site")
    folder = tmp_path_factory.mktemp("site")
    paths = {"PYTHONPATH": f"{ROOT / 'docs'}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "website", str(folder)], env={**os.environ, **paths}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "html"


def test_every_page_is_there(html: Path) -> None:
    assert [str(page) for page in PAGES if not (html / "docs" / page.with_suffix(".html")).exists()] == []


def test_the_reference_of_c_has_every_function(html: Path) -> None:
    names = set(re.findall(r"^\s+(\w+);$", (ROOT / "libmicrovmi_py/_native/exports.map").read_text(), re.MULTILINE))
    shown = (html / "reference" / "c.html").read_text()
    assert len(names) > 50
    assert {name for name in names if f'id="{name.replace("_", "-")}"' not in shown} == set()


def test_the_reference_of_python_has_every_name(html: Path) -> None:
    shown = (html / "reference" / "python.html").read_text()
    names = set(libmicrovmi_py.__all__) - {"__version__"}
    assert {name for name in names if f"libmicrovmi_py.{name}" not in shown} == set()
    assert 'id="libmicrovmi_py.Microvmi.read_physical"' in shown


def test_the_reference_of_the_command_has_every_subcommand(html: Path) -> None:
    shown = (html / "reference" / "command.html").read_text()
    assert {name for name in known.names() if f'id="microvmi-{name}"' not in shown} == set()


def test_nothing_is_loaded_from_elsewhere(html: Path) -> None:
    """The site works without a network: links lead out, but no script, style or picture comes from there."""
    loaded = re.compile(r"<(?:script|img|link)[^>]*(?:src|href)=\"(?:https?:)?//[^\"]*\"")
    assert {page.name: loaded.findall(page.read_text()) for page in html.rglob("*.html")} == {
        page.name: [] for page in html.rglob("*.html")
    }
