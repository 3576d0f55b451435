# SPDX-License-Identifier: Apache-2.0
"""The Memflow driver over a fake of the memflow package."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import (
    DriverUnavailableError,
    InvalidArgumentError,
    IoError,
    NoDriverError,
    NotMappedError,
    ReadOnlyError,
)

PACKAGES = Path(__file__).with_name("packages")


@pytest.fixture(autouse=True)
def package() -> Iterator[None]:
    """Each test imports the package anew; a real one, if it is there, comes back afterwards."""
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "memflow"}
    for name in before:
        del sys.modules[name]
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "memflow"]:
        del sys.modules[name]
    sys.modules.update(before)


def opened(connector: str | None, arguments: str = "", **parameters: object) -> Microvmi:
    values: dict[str, Any] = {"package": PACKAGES, "plugins": PACKAGES, **parameters}
    values.setdefault("memflow_connector_args", arguments)
    return Microvmi(driver="memflow", memflow_connector_name=connector, **values)


def arguments_of_the_last() -> Any:
    return sys.modules["memflow"].Inventory.last_arguments


def addresses(start: int, size: int) -> bytes:
    return b"".join(address.to_bytes(8, "little") for address in range(start, start + size, 8))


def test_a_connector_is_needed_before_anything_is_imported() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^Memflow driver requires the memflow_connector_name parameter"):
        opened(None)
    assert "memflow" not in sys.modules


@pytest.mark.parametrize(("given", "named"), [("noequals", "noequals"), ("a=1,b", "b"), ("=1", "=1")])
def test_arguments_of_another_form_are_told_before_anything_is_imported(given: str, named: str) -> None:
    expected = f"^Invalid format for Memflow connector argument \\(key=value\\), got {named}$"
    with pytest.raises(InvalidArgumentError, match=expected):
        opened("fake", given)
    assert "memflow" not in sys.modules


def test_without_a_driver_it_is_tried_and_gives_its_reason() -> None:
    with pytest.raises(NoDriverError, match="memflow: Memflow driver requires the memflow_connector_name"):
        Microvmi("nobody-has-this-name")


def test_arguments_and_target_reach_the_connector() -> None:
    opened("fake", "size=0x4000,url=tcp://1.2.3.4:80", vm_name="debian").close()
    assert arguments_of_the_last() == 'debian:size=0x4000,url="tcp://1.2.3.4:80"'
    opened("fake").close()
    assert arguments_of_the_last() == ":"


def test_a_package_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DriverUnavailableError, match=r"no Python package memflow in .*: pip install memflow"):
        opened("fake", package=tmp_path)


def test_a_package_that_does_not_load_tells_why_and_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "memflow.py").write_text("raise ImportError('libfoo.so: cannot open\\n shared object file')\n")
    for _ in range(2):
        with pytest.raises(DriverUnavailableError, match=r"libfoo\.so: cannot open shared object file$"):
            opened("fake", package=tmp_path)


def test_importing_leaves_the_path_alone() -> None:
    before = list(sys.path)
    opened("fake").close()
    assert sys.path == before


@pytest.mark.parametrize(
    ("connector", "reason"),
    [("other", "inventory: plugin not found"), ("panicking", "index out of bounds: the len is 0")],
)
def test_errors_of_the_package_reach_the_user(connector: str, reason: str) -> None:
    with pytest.raises(DriverUnavailableError, match=f"memflow cannot make the connector {connector}: {reason}$"):
        opened(connector)


def test_plugins_are_looked_for_where_they_are_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(DriverUnavailableError, match="inventory: plugin not found"):
        opened("fake", plugins=tmp_path)
    with pytest.raises(DriverUnavailableError, match="invalid path argument"):
        opened("fake", plugins=tmp_path / "missing")


def test_the_working_directory_is_never_looked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 1 << 40)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DriverUnavailableError) as caught:
        opened("fake", plugins=None)
    assert "working directory" not in str(caught.value)


def test_a_connector_without_memory_is_refused() -> None:
    with pytest.raises(DriverUnavailableError, match="maximum address that cannot be"):
        opened("fake", "size=0")


def test_a_folder_that_only_has_the_name_is_no_package(tmp_path: Path) -> None:
    (tmp_path / "memflow").mkdir()
    with pytest.raises(DriverUnavailableError, match="no Python package memflow"):
        opened("fake", package=tmp_path)


@pytest.mark.parametrize(("address", "size"), [(0, 8), (3, 2), (0xFFF, 2), (0x1003, 0x1235), (0, 0x10000), (0xFFF9, 7)])
def test_reads_give_what_is_there(address: int, size: int) -> None:
    with opened("fake") as machine:
        assert machine.max_addr == 0x10000
        assert machine.read_physical(address, size) == addresses(0, 0x10000)[address : address + size]


@pytest.mark.parametrize(("address", "size"), [(0xFF9, 7), (0xFFF, 1), (0, 0x1000), (1, 0xFFF)])
def test_a_read_touches_its_own_frame_only(address: int, size: int) -> None:
    with opened("fake") as machine:
        machine.read_physical(address, size)
        assert machine.driver._connector.furthest == 0x1000  # type: ignore[attr-defined]


def test_large_reads_are_few_calls() -> None:
    with opened("fake", "size=0x300000") as machine:
        assert machine.read_physical(8, 0x2FFFF8) == addresses(8, 0x2FFFF8)
        assert machine.driver._connector.calls == 3  # type: ignore[attr-defined]


def test_a_read_ends_at_the_maximum_address_and_leaves_the_rest_alone() -> None:
    with opened("fake") as machine:
        buffer = bytearray(b"\xa5" * 0x3000)
        assert machine.read_physical_into(0xF000, buffer) == 0x1000
        assert buffer == addresses(0xF000, 0x1000) + b"\xa5" * 0x2000
        with pytest.raises(NotMappedError):
            machine.read_physical(0x10000, 1)


@pytest.mark.parametrize(("address", "size"), [(5, 3), (0xFFE, 4), (0x1000, 0x3001)])
def test_a_write_changes_those_bytes_and_no_other(address: int, size: int) -> None:
    with opened("fake") as machine:
        expected = bytearray(addresses(0, 0x10000))
        expected[address : address + size] = data = b"\xc3" * size
        machine.write_physical(address, data)
        assert machine.read_physical(0, 0x10000) == expected


def test_what_cannot_be_written_says_so() -> None:
    with opened("fake", "readonly=1") as machine, pytest.raises(ReadOnlyError):
        machine.write_physical(0, b"x")
    with opened("fake") as machine, pytest.raises(NotMappedError):
        machine.write_physical(0xFFFF, b"xy")


def test_a_connector_that_fails_is_no_hole() -> None:
    with opened("failing") as machine:
        buffer = bytearray(b"\xa5" * 0x3000)
        for access in (machine.read_physical_into, machine.read_physical_padded_into):
            with pytest.raises(IoError, match="unable to read from the target"):
                access(0x1000, buffer)
        assert buffer == b"\xa5" * 0x3000
        with pytest.raises(IoError, match="unable to"):
            machine.write_physical(0, b"x")


@pytest.mark.parametrize("behind", [0, 5, 0x1000])
def test_a_large_read_that_fails_tells_what_it_has(behind: int) -> None:
    """A call reads 1 MiB: what the calls before the one that failed have read is valid."""
    unreadable = 0x280000
    with opened("fake", f"size=0x400000,unreadable={unreadable:#x}") as machine:
        buffer = bytearray(0x300000)
        with pytest.raises(IoError) as caught:
            machine.read_physical_into(behind, buffer)
        error = caught.value
        assert (error.completed, error.requested) == (0x200000, len(buffer))
        assert error.address == behind + 0x200000
        assert buffer[:0x200000] == addresses(0, 0x202000)[behind : behind + 0x200000]


def test_threads_take_turns() -> None:
    wrong: list[int] = []

    def hammer(machine: Microvmi) -> None:
        for address in range(0, 0x8000, 0x7F8):
            if machine.read_physical(address, 0x1000) != addresses(address, 0x1000):
                wrong.append(address)

    with opened("fake") as machine:
        threads = [threading.Thread(target=hammer, args=(machine,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert wrong == []
