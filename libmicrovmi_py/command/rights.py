# SPDX-License-Identifier: Apache-2.0
"""What page tables allow, in a word or two."""

from __future__ import annotations

from libmicrovmi_py.paging import PageRights

_LETTERS = "rwx"


def rights_of(rights: PageRights) -> str:
    """``rw- ---``: what the kernel may, and what programs may: read, write, execute."""
    return " ".join(
        "".join(letter if rights & first << index else "-" for index, letter in enumerate(_LETTERS))
        for first in (PageRights.KERNEL_READ, PageRights.USER_READ)
    )
