# SPDX-License-Identifier: Apache-2.0
"""Options as QEMU's command line has them: ``-word a,key=value,switch=on``."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

_COMMA = re.compile(r"(?:[^,]|,,)+")


def options(text: str, first: str) -> dict[str, str]:
    """``a,b=c,d=on`` as a dictionary: ``first`` is the name of a leading value, ``,,`` a comma, a bare word is on."""
    found: dict[str, str] = {}
    for index, item in enumerate(_COMMA.findall(text)):
        key, equals, value = item.replace(",,", ",").partition("=")
        if equals:
            found[key] = value
        elif index == 0:
            found[first] = key
        elif key.startswith("no") and key != "nodelay":
            found[key[2:]] = "off"
        else:
            found[key] = "on"
    return found


def values(argv: Sequence[str], option: str) -> Iterator[str]:
    """What stands behind each ``-option``."""
    for word, value in itertools.pairwise(argv):
        if word in (f"-{option}", f"--{option}"):
            yield value
