# SPDX-License-Identifier: Apache-2.0
"""Which drivers the contract test runs over, and which stands there are for them.

They are the drivers of the tree; and, for whoever writes one elsewhere, those in ``MICROVMI_PLUGIN_PATH`` that have a
stand in the folder that ``MICROVMI_STANDS`` names.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from contract.target import Failing, Target

from libmicrovmi_py.drivers import registry
from libmicrovmi_py.drivers.base import Driver

FOLDERS = [Path(__file__).with_name("stands"), *map(Path, filter(None, [os.environ.get("MICROVMI_STANDS")]))]

Stand = Callable[[Path], Iterator[Target]]


def drivers_of_the_tree() -> dict[str, type[Driver]]:
    """The drivers of the tree by name."""
    return {name: driver for name, driver in _registered().items() if driver.__module__.startswith("libmicrovmi_py.")}


def drivers() -> dict[str, type[Driver]]:
    """Those, and others that have a stand."""
    others = {name: driver for name, driver in _registered().items() if name in stand_files()}
    return drivers_of_the_tree() | others


def _registered() -> dict[str, type[Driver]]:
    return {driver.name: driver for driver in registry.all_drivers()}


def stand_files() -> dict[str, Path]:
    """The stands' files by their names, which are names of drivers."""
    return {path.stem: path for folder in FOLDERS for path in sorted(folder.glob("*.py"))}


def stands() -> dict[str, Stand]:
    """Every stand that belongs to a driver: ``qemu`` for the function ``stand`` of ``qemu.py``, ``qemu-private`` for
    ``stand_private``.
    """
    found: dict[str, Stand] = {}
    for name, path in stand_files().items():
        if name in drivers():
            for function, make in vars(_load(path)).items():
                if function == "stand" or function.startswith("stand_"):
                    found[function.replace("stand", name, 1).replace("_", "-")] = make
    return found


def provoking() -> dict[str, Stand]:
    """The stands that make events happen.

    The function ``provoking`` of a stand's file, for a driver whose other machines are played by somebody who does not
    play these; else all of a file whose guest can be made to.
    """
    found = {
        name: vars(_load(path))["provoking"]
        for name, path in stand_files().items()
        if name in drivers() and "provoking" in vars(_load(path))
    }
    files = {name: stand_files()[name.partition("-")[0]] for name in stands()}
    able = {name for name, path in files.items() if any(map(_provokes, vars(_load(path)).values()))}
    return found | {name: stands()[name] for name in able if files[name].stem not in found}


def _provokes(thing: object) -> bool:
    return isinstance(thing, type) and hasattr(thing, "provoke")


def failing() -> dict[str, Callable[[Path], Iterator[Failing]]]:
    """Every way to make a driver fail in the middle: the functions ``failing`` and ``failing_WORD`` of the stands."""
    found: dict[str, Callable[[Path], Iterator[Failing]]] = {}
    for name, path in stand_files().items():
        if name in drivers():
            for function, make in vars(_load(path)).items():
                if function == "failing" or function.startswith("failing_"):
                    found[function.replace("failing", name, 1).replace("_", "-")] = make
    return found


def _load(path: Path) -> ModuleType:
    name = f"contract_stand_{path.stem}"
    if name not in sys.modules:
        spec = spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]
