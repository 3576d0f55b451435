# SPDX-License-Identifier: Apache-2.0
"""A program that ends in the middle of events, and says whether anything is left: ``ending.py STAND FOLDER HOW``."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

alive: list[Any] = []
"""The stand and the machine, which nobody closes."""

last: list[Callable[[], bool]] = []
"""Asks whether nothing is left."""


@atexit.register
def tell() -> None:
    """Registered before the library is loaded, so that it comes after what the library does at the end."""
    print("nothing left" if last[0]() else "something left", flush=True)


def main(stand: str, folder: str, how: str) -> None:
    """Set the stand up, open its machine, and end."""
    from contract.stock import provoking
    from contract.test_contract_provoked import in_the_middle, nothing_left

    from libmicrovmi_py import Microvmi

    made = contextmanager(provoking()[stand])(Path(folder))
    target = made.__enter__()
    machine = Microvmi.open(target.uri)
    assert target.guest is not None
    guest = target.guest
    alive.extend((made, machine))
    last.append(lambda: nothing_left(machine, guest))
    in_the_middle(machine, guest)
    print("in the middle", flush=True)
    if how == "raises":
        raise KeyError
    if how == "exits":
        sys.exit(3)


if __name__ == "__main__":
    main(*sys.argv[1:])
