# SPDX-License-Identifier: Apache-2.0
"""The reference of the Python package: what ``libmicrovmi_py`` exports, for Sphinx to take the docstrings of."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import libmicrovmi_py

HEAD = """The Python package
==================

.. automodule:: libmicrovmi_py
   :no-members:
"""
TITLES = {"class": "Classes", "exception": "Errors", "function": "Functions", "data": "Constants"}


def page() -> str:
    """All of it, in reStructuredText: Microvmi first, then the rest by kind and name."""
    return HEAD + "".join(_parts())


def _parts() -> Iterator[str]:
    names = sorted(set(libmicrovmi_py.__all__) - {"__version__"}, key=lambda name: (name != "Microvmi", name))
    for kind, title in TITLES.items():
        yield f"\n{title}\n{'-' * len(title)}\n"
        for name in names:
            if _kind(getattr(libmicrovmi_py, name)) == kind:
                members = "   :members:\n   :undoc-members:\n" if kind == "class" else ""
                yield f"\n.. auto{kind}:: libmicrovmi_py.{name}\n{members}"


def _kind(value: object) -> str:
    if inspect.isclass(value):
        return "exception" if issubclass(value, BaseException) else "class"
    return "function" if inspect.isfunction(value) else "data"
