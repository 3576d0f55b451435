# SPDX-License-Identifier: Apache-2.0
"""What a planted bug is: one text of the tree in place of another, and the tests that have to notice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """A bug to be planted.

    ``file`` is a path from the root of the tree, ``old`` occurs in it exactly once and is replaced by ``new``. ``does``
    says what the bug would do to a user. ``tests`` are pytest's arguments, paths or node ids: one of them has to fail.
    ``why`` is empty, or says why no test can see this one; it is then only reported.
    """

    file: str
    old: str
    new: str
    does: str
    tests: tuple[str, ...]
    why: str = ""
