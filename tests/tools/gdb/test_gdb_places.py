# SPDX-License-Identifier: Apache-2.0
"""Breakpoints and watchpoints of each type, as a debugger places them, on the machine that does everything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tools.gdb.remote import Client, served

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.fake import FakeDriver

WATCHED, BROKEN = 0x3000, 0x7CC0


@pytest.fixture
def machine() -> Iterator[Microvmi]:
    with Microvmi.open("vmi://fake/") as opened:
        yield opened


@pytest.fixture
def client(machine: Microvmi, tmp_path: Path) -> Iterator[Client]:
    """A debugger; when it has gone nothing is left."""
    with served(machine, tmp_path) as path, Client(path) as connected:
        yield connected
    assert isinstance(machine.driver, FakeDriver)
    assert machine.driver.left_behind == 0


@pytest.mark.parametrize(("kind", "name"), [(2, "watch"), (3, "rwatch"), (4, "awatch")])
def test_a_watchpoint_stops_behind_an_access(client: Client, kind: int, name: str) -> None:
    assert client.ask(b"Z%d,%x,4" % (kind, WATCHED)) == b"OK"
    assert client.ask(b"vCont;c") == b"T05%s:%x;thread:1;" % (name.encode(), WATCHED)
    assert client.ask(b"z%d,%x,4" % (kind, WATCHED)) == b"OK"


@pytest.mark.parametrize(("kind", "name"), [(0, "swbreak"), (1, "hwbreak")])
def test_a_breakpoint_is_told_by_its_type(client: Client, kind: int, name: str) -> None:
    assert client.ask(b"Z%d,%x,1" % (kind, BROKEN)) == b"OK"
    assert client.ask(b"vCont;c") == b"T05%s:;thread:1;" % name.encode()


def test_two_of_one_address_are_removed_one_by_one(client: Client, machine: Microvmi) -> None:
    for packet in (b"Z2,%x,4", b"Z2,%x,4", b"Z0,%x,1", b"Z1,%x,1", b"z0,%x,1"):
        assert client.ask(packet % (WATCHED if b"2" in packet[:2] else BROKEN)) == b"OK"
    assert client.ask(b"z2,%x,4" % WATCHED) == b"OK"
    assert client.ask(b"vCont;c") == b"T05hwbreak:;thread:1;"


@pytest.mark.parametrize("packet", [b"Z2,3000,0", b"Z2,ffffffffffffffff,8"])
def test_a_range_that_is_none_is_refused_with_the_reason(client: Client, packet: bytes) -> None:
    assert client.ask(packet).startswith(b"E.")
    assert client.ask(b"?") == b"T05thread:1;"


def test_what_is_no_type_is_not_there(client: Client) -> None:
    assert client.ask(b"Z5,3000,4") == b""
