# SPDX-License-Identifier: Apache-2.0
"""Which drivers the tree has, and which stands there are for them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path

from contract.target import Target

from libmicrovmi_py.drivers import registry
from libmicrovmi_py.drivers.base import Driver

STANDS = Path(__file__).with_name("stands")

Stand = Callable[[Path], Iterator[Target]]


def drivers() -> dict[str, type[Driver]]:
    """The drivers of the tree by name; those of plugins and other packages are theirs to test."""
    found = [driver for driver in registry.all_drivers() if driver.__module__.startswith("libmicrovmi_py.drivers.")]
    return {driver.name: driver for driver in found}


def stand_files() -> list[str]:
    """The names of the stands' files, which are names of drivers."""
    return sorted(path.stem for path in STANDS.glob("*.py"))


def stands() -> dict[str, Stand]:
    """Every stand that belongs to a driver: ``qemu`` for the function ``stand``, ``qemu-private`` for
    ``stand_private``.
    """
    found: dict[str, Stand] = {}
    for name in sorted(drivers().keys() & set(stand_files())):
        for function, make in vars(importlib.import_module(f"contract.stands.{name}")).items():
            if function == "stand" or function.startswith("stand_"):
                found[function.replace("stand", name, 1).replace("_", "-")] = make
    return found
