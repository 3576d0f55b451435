# SPDX-License-Identifier: Apache-2.0
"""Finds drivers and opens machines with them.

A driver is a module or folder of this package, the same in a directory that MICROVMI_PLUGIN_PATH names, or an entry
point of the group ``libmicrovmi.drivers`` of an installed package; each has ``DRIVER = Class``. None is named here.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType

from libmicrovmi_py import drivers as _package
from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.drivers.base import Driver
from libmicrovmi_py.environment import variable
from libmicrovmi_py.errors import DriverUnavailableError, InvalidArgumentError, MicrovmiError, NoDriverError, logger
from libmicrovmi_py.model import DriverType
from libmicrovmi_py.params import COMMON_KEYS, FROZEN_KEYS, Parameters
from libmicrovmi_py.transport.fds import StandardStreamsHeld, check_room

if TYPE_CHECKING:
    import pkgutil

ENTRY_POINT_GROUP = "libmicrovmi.drivers"

_log = logger(__name__)


def open_driver(params: Parameters, driver_type: DriverType | None = None) -> Driver:
    """Open the machine that ``params`` names.

    With a driver's name in ``params``, or a type, only that one is tried and its error is raised as it is. Without,
    all automatic drivers are tried in the order of their types; ``NoDriverError`` then holds every reason, that of a
    driver which found the machine first.
    """
    with StandardStreamsHeld():
        check_room()
        if params.driver is not None:
            return _open_one(_named(params), params)
        if driver_type is not None:
            driver = _of_type(driver_type)
            return _open_one(driver, Parameters(params, driver=driver.name))
        return _open_any(params)


def _named(params: Parameters) -> type[Driver]:
    """The driver that ``params`` names; where there is nothing but that name, it may be meant for a machine's."""
    name = params.driver or ""
    try:
        return find(name)
    except DriverUnavailableError as err:
        if params:
            raise
        raise DriverUnavailableError(f"{err}; the machine {name} is vmi:///?vm_name={name}") from err


def all_drivers() -> Iterator[type[Driver]]:
    """Every driver, in the order of trial: ours by type, then those from elsewhere, which are looked up last."""
    yield from sorted(_builtin(), key=lambda driver: (driver.type, driver.name))
    yield from _plugins()


def find(name: str) -> type[Driver]:
    """The driver of that name, or ``DriverUnavailableError`` that lists the names there are."""
    names = []
    for driver in itertools.chain(_named_after(name), all_drivers()):
        if driver.name == name:
            return driver
        names.append(driver.name)
    raise DriverUnavailableError(f"there is no driver {name}; there are: {', '.join(dict.fromkeys(names))}")


def _named_after(name: str) -> Iterator[type[Driver]]:
    """The driver of the module of that name: most are called as their module is, which saves loading the others."""
    module = f"{_package.__name__}.{name}"
    if not name.isidentifier():
        return
    try:
        driver = _driver_of(_imported(module))
    except ModuleNotFoundError as err:
        if err.name != module:
            raise
        return
    if driver is not None:
        yield driver


def _of_type(driver_type: DriverType) -> type[Driver]:
    if driver_type is DriverType.PLUGIN:
        raise InvalidArgumentError("driver type PLUGIN stands for several drivers: name one in a URI")
    if driver_type is DriverType.SNAPSHOT:
        raise InvalidArgumentError("a snapshot is not opened: it is taken of an open machine, by microvmi_snapshot()")
    for driver in _builtin():
        if driver.type is driver_type:
            return driver
    raise DriverUnavailableError(f"this version has no {driver_type.name} driver")


def _open_any(params: Parameters) -> Driver:
    reasons: list[tuple[bool, str]] = []
    refused: set[str] | None = None
    for driver in all_drivers():
        if not driver.automatic:
            continue
        unknown = _unknown_keys(driver, params)
        refused = unknown if refused is None else refused & unknown
        try:
            return _open_one(driver, params)
        except MicrovmiError as err:
            reasons.append((err.machine_found, f"{driver.name}: {err}"))
            _log.debug("driver %s: %s", driver.name, err)
    if refused:
        raise InvalidArgumentError(f"no driver knows the parameter {', '.join(sorted(refused))}")
    if params.word and not any(found for found, _ in reasons):
        try:
            return _open_file(params)
        except MicrovmiError as err:
            reasons.append((False, f"as a file: {err}"))
    ordered = sorted(reasons, key=lambda reason: not reason[0])
    none = NoDriverError("no suitable microvmi driver available", *(text for _, text in ordered))
    none.machine_found = any(found for found, _ in reasons)
    raise none


def _open_file(params: Parameters) -> Driver:
    """The file that a word names which is no machine's name."""
    word = params.vm_name or ""
    if not os.path.exists(word):
        forms = f"an image is a path with a slash (./{word}), a machine vmi:///?vm_name={word}"
        raise InvalidArgumentError(f"there is no file {word} here; {forms}")
    return open_driver(params.as_file())


def _unknown_keys(driver: type[Driver], params: Parameters) -> set[str]:
    return set(params) - {*FROZEN_KEYS, *COMMON_KEYS, *driver.parameters}


def _open_one(driver: type[Driver], params: Parameters) -> Driver:
    unknown = _unknown_keys(driver, params)
    if unknown:
        wrong, known = ", ".join(sorted(unknown)), ", ".join(["vm_name", *COMMON_KEYS, *driver.parameters])
        raise InvalidArgumentError(f"the {driver.name} driver has no parameter {wrong}; it has {known}")
    opened = driver.open(params)
    _log.info("opened with driver %s, %#x bytes", driver.name, opened.max_addr)
    return opened


def _builtin() -> Iterator[type[Driver]]:
    for info in _modules_in(_package.__path__):
        driver = _driver_of(_imported(f"{_package.__name__}.{info.name}"))
        if driver is not None:
            yield driver


def _imported(name: str) -> ModuleType:
    """As ``importlib.import_module``, which would have to be imported itself."""
    __import__(name)
    return sys.modules[name]


def _modules_in(folders: Iterable[str]) -> Iterator[pkgutil.ModuleInfo]:
    import pkgutil  # large, and not needed where a driver was named

    return pkgutil.iter_modules(folders)


def _driver_of(module: ModuleType) -> type[Driver] | None:
    driver = getattr(module, "DRIVER", None)
    if driver is not None and not (isinstance(driver, type) and issubclass(driver, Driver)):
        raise TypeError(f"DRIVER of {module.__name__} is no subclass of libmicrovmi_py.drivers.base.Driver")
    return driver


def _plugins() -> Iterator[type[Driver]]:
    """Drivers from elsewhere; one that does not load is a warning and no more."""
    for info in _modules_in(_plugin_path()):
        try:
            driver = _driver_of(_load_plugin(info))
        except Exception as err:
            _log.warning("plugin %s is left out: %s", info.name, err)
            continue
        if driver is not None:
            yield driver
    yield from _entry_points()


def _plugin_path() -> list[str]:
    return [item for item in variable("MICROVMI_PLUGIN_PATH").split(os.pathsep) if item]


def _load_plugin(info: pkgutil.ModuleInfo) -> ModuleType:
    """Load a file or folder under a name of ours, so that it cannot stand in for another module."""
    name = f"microvmi_plugin_{info.name}"
    if name in sys.modules:
        return sys.modules[name]
    import importlib.util

    found = info.module_finder.find_spec(info.name, None)
    if found is None or found.origin is None:
        raise ImportError("not a Python module")
    spec = importlib.util.spec_from_file_location(
        name, found.origin, submodule_search_locations=found.submodule_search_locations
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{found.origin} is not a Python module")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _entry_points() -> Iterator[type[Driver]]:
    from importlib.metadata import entry_points

    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            driver = point.load()
            if not (isinstance(driver, type) and issubclass(driver, Driver)):
                raise TypeError(f"{driver!r} is no subclass of Driver")
        except Exception as err:
            _log.warning("plugin %s is left out: %s", point.name, err)
            continue
        yield driver
