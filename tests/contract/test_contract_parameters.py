# SPDX-License-Identifier: Apache-2.0
"""Wrong parameters, for every driver: one clear line, at once, and never a crash."""

from __future__ import annotations

from ctypes import byref, c_uint
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import pytest
from contract.calls import INTERNAL, INVALID_ARGUMENT, OK, error_line, within
from contract.stock import drivers

from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import MicrovmiError
from libmicrovmi_py.model import DriverType

each_driver = pytest.mark.parametrize("name", drivers())

NAMES = {
    "empty": "",
    "absent": "no-such-machine-1",
    "long": "x" * 0x10000,
    "long-path": "/x" * 0x8000,
    "newline": "a%0Ab",
    "return": "a%0D%0Ab",
    "nul": "a%00b",
    "escape": "%1B[31mred",
    "not-utf8": "%FF%FE",
    "slashes": "../../no/such/../machine",
    "blank": "%20",
    "number": "0",
    "huge-number": "99999999999999999999",
    "negative": "-1",
    "unicode": "m%C3%A4chine%E2%80%AE",
}


def refused(lib: Any, uri: str) -> None:
    """Opening fails with a line, or works: a driver may pass over a name, the machine made of bytes does."""
    with within(0.9):
        context = lib.microvmi_open(uri.encode(), None)
    if context is not None:
        lib.microvmi_destroy(context)
        return
    error_line(lib)
    assert lib.microvmi_last_error_code() not in (OK, INTERNAL)


def with_timeout(name: str) -> str:
    return "&timeout=0.5" if "timeout" in drivers()[name].parameters else ""


@each_driver
@pytest.mark.parametrize("given", NAMES)
def test_names_that_no_machine_has(lib: Any, name: str, given: str) -> None:
    refused(lib, f"vmi://{name}/?vm_name={NAMES[given]}{with_timeout(name)}")


@each_driver
@pytest.mark.parametrize("given", NAMES)
def test_wrong_values_of_every_parameter(lib: Any, name: str, given: str) -> None:
    for key in drivers()[name].parameters:
        timeout = "" if key == "timeout" else with_timeout(name)
        refused(lib, f"vmi://{name}/?vm_name=no-such-machine-1&{key}={NAMES[given]}{timeout}")


@each_driver
@pytest.mark.parametrize("given", [name for name in NAMES if name != "not-utf8"])
def test_the_same_through_the_parameters_of_c(lib: Any, stubs: ModuleType, name: str, given: str) -> None:
    if drivers()[name].type is DriverType.PLUGIN:
        return
    params = stubs.DriverInitParamsFFI()
    params.common.vm_name = unquote(NAMES[given]).encode()
    with within(12):
        assert lib.microvmi_init(byref(c_uint(drivers()[name].type)), byref(params), None) is None
    error_line(lib)
    assert lib.microvmi_last_error_code() not in (OK, INTERNAL)


@each_driver
def test_an_unknown_key_lists_the_known(lib: Any, name: str) -> None:
    with within(0.1):
        assert lib.microvmi_open(f"vmi://{name}/?vm_name=x&colour=red".encode(), None) is None
    assert lib.microvmi_last_error_code() == INVALID_ARGUMENT
    text = error_line(lib)
    for word in (name, "colour", "vm_name", *drivers()[name].parameters):
        assert word in text


@each_driver
def test_no_parameters_at_all(lib: Any, name: str) -> None:
    refused(lib, f"vmi://{name}/")


@each_driver
@pytest.mark.parametrize("given", ["", "a\nb", "a\0b", "x" * 0x10000, "\udcff"], ids=range(5))
def test_the_same_from_python(name: str, given: str) -> None:
    text = ""
    try:
        Microvmi(given, driver=name).close()
    except MicrovmiError as err:
        text = str(err)
    assert len(text) < 1000
    assert "\n" not in text
