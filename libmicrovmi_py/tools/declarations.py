# SPDX-License-Identifier: Apache-2.0
"""Types by the words in which variables are declared: found in what a kernel knows of its types."""

from __future__ import annotations

import re

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.errors import MicrovmiError
from libmicrovmi_py.linux.btf import Kind, Types

_DECLARED = re.compile(r"(?P<base>\{[\w ]+\}|[\w ]*\w)(?P<stars>(?: \*)*)(?: \[(?P<count>\d*)\])?")
_KINDS = {"struct ": (Kind.STRUCT,), "union ": (Kind.UNION,)}
_OTHERS = (Kind.INT, Kind.TYPEDEF)


class Declared(NamedTuple):
    """A type by its number, ``None`` where the kernel has none such; how many pointers lead to it; an array's elements.

    ``elements``: ``None`` for what is no array, -1 for one that has as many as there is room for.
    """

    number: int | None
    stars: int = 0
    elements: int | None = None


class Declarations:
    """The types of a kernel by declarations, see :mod:`~libmicrovmi_py.tools.variables`."""

    def __init__(self, types: Types) -> None:
        self._types = types

    def find(self, text: str) -> Declared:
        """The first of the alternatives of a declaration that the kernel has."""
        for alternative in text.split(" | "):
            match = _DECLARED.fullmatch(alternative)
            assert match is not None, text
            if (number := self._number(match["base"])) is not None:
                count = match["count"]
                return Declared(number, match["stars"].count("*"), None if count is None else int(count or -1))
        return Declared(None)

    def _number(self, base: str) -> int | None:
        if base == "void":
            return 0
        if base.startswith("{"):
            return self._nameless(base[1:-1].split())
        kinds = next((kinds for start, kinds in _KINDS.items() if base.startswith(start)), _OTHERS)
        try:
            return self._types.find(base.removeprefix("struct ").removeprefix("union "), *kinds).number
        except KeyError:
            return None

    def _nameless(self, members: list[str]) -> int | None:
        """The structure without a name whose first members have these names."""
        for record in self._types.of(Kind.STRUCT):
            if record.name or record.items < len(members):
                continue
            try:
                first = [member.name for member in self._types.structure(record.number).members()]
            except MicrovmiError:
                continue
            if first[: len(members)] == members:
                return record.number
        return None
