# SPDX-License-Identifier: Apache-2.0
"""Runs every test with the fixture ``target`` over every stand, and opens its machine through C and through Python."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from contract.known import Known
from contract.stock import Stand, drivers, stands
from contract.target import Target
from contract.truth import Truth

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.base import Driver

STANDS = stands()


@pytest.fixture(scope="module", params=STANDS)
def stand_name(request: pytest.FixtureRequest) -> str:
    """The stand that the test runs on."""
    return str(request.param)


@pytest.fixture(scope="module")
def driver(stand_name: str) -> type[Driver]:
    """The driver that the stand is for."""
    return drivers()[stand_name.partition("-")[0]]


@pytest.fixture(scope="module")
def target(stand_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The machine, set up once for the tests of a file: each leaves it as it found it."""
    make: Stand = STANDS[stand_name]
    with contextmanager(make)(tmp_path_factory.mktemp("s")) as made:
        yield made


@pytest.fixture(scope="module")
def truth(target: Target) -> Truth:
    """What the machine's memory holds."""
    return Truth.of(target.pieces)


@pytest.fixture(scope="module")
def known(target: Target) -> Known:
    """What the machine tells of itself."""
    return Known.of(target)


@pytest.fixture
def context(lib: Any, target: Target) -> Iterator[int]:
    """The machine, opened through C; not for a test that opens it through Python as well."""
    opened = lib.microvmi_open(target.uri.encode(), None)
    assert opened, lib.microvmi_last_error()
    yield opened
    lib.microvmi_destroy(opened)


@pytest.fixture
def machine(target: Target) -> Iterator[Microvmi]:
    """The machine, opened through Python; not for a test that opens it through C as well."""
    with Microvmi.open(target.uri) as opened:
        yield opened
