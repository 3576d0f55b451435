# SPDX-License-Identifier: Apache-2.0
"""What is known about an image: C and Python say the same, and a machine that is none has nothing to tell."""

from __future__ import annotations

import os
from ctypes import byref, sizeof
from types import ModuleType
from typing import Any

import pytest
from contract.calls import NOT_SUPPORTED, error_line

from libmicrovmi_py import ImageAccess, Microvmi, NotSupportedError
from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.drivers.base import Driver
from libmicrovmi_py.model import DriverType

LISTS = ("wrappers", "files", "missing", "remarks")
NOT_TOLD = 2**64 - 1


def new(stubs: ModuleType) -> Any:
    return stubs.microvmi_image_info(struct_size=sizeof(stubs.microvmi_image_info))


def test_c_and_python_tell_the_same_of_an_image(
    lib: Any, context: int, machine: Microvmi, driver: type[Driver], stubs: ModuleType
) -> None:
    if driver.type is not DriverType.DUMP:
        return
    told, info = new(stubs), machine.image_info
    assert lib.microvmi_get_image_info(context, byref(told)), lib.microvmi_last_error()
    assert told.struct_size == sizeof(stubs.microvmi_image_info)
    assert (told.pages_present, told.pages_absent) == (info.present, info.absent)
    assert told.pages_zero == (NOT_TOLD if info.zero is None else info.zero)
    for name in ("format", "producer", "machine"):
        assert getattr(told, name).decode() == getattr(info, name), name
    for name in LISTS:
        lines = tuple(getattr(told, name).decode().split("\n")) if getattr(told, name) else ()
        assert (lines, getattr(told, f"{name}_count")) == (getattr(info, name), len(lines)), name
    assert ImageAccess(told.access) is info.access


def test_it_tells_of_the_memory_that_there_is(machine: Microvmi, driver: type[Driver]) -> None:
    if driver.type is not DriverType.DUMP:
        return
    info = machine.image_info
    assert info.present == sum(-(-item.size // 4096) for item in machine.memory_map())
    assert (info.absent, info.missing, info.remarks, info.wrappers) == (0, (), (), ())
    assert all(os.path.exists(path) for path in info.files)
    assert (info.access is ImageAccess.PIECES) is machine.driver.static
    assert (info.access is ImageAccess.MAPPED) is bool(machine.abilities.can & Ability.MAP)


def test_who_is_no_image_says_so(
    lib: Any, context: int, machine: Microvmi, driver: type[Driver], stubs: ModuleType
) -> None:
    if driver.type is DriverType.DUMP:
        return
    told = new(stubs)
    before = bytes(told)
    assert not lib.microvmi_get_image_info(context, byref(told))
    assert (lib.microvmi_last_error_code(), bytes(told)) == (NOT_SUPPORTED, before)
    assert "is no image of memory" in error_line(lib)
    with pytest.raises(NotSupportedError):
        _ = machine.image_info


def test_a_snapshot_of_an_image_is_none(machine: Microvmi, driver: type[Driver]) -> None:
    if driver.type is not DriverType.DUMP:
        return
    with machine.snapshot() as taken, pytest.raises(NotSupportedError, match="by the snapshot driver"):
        _ = taken.image_info
