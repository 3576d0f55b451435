# SPDX-License-Identifier: Apache-2.0
"""Domains by name, libraries by version, and what a host without Xen is told."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.xen import DOORS, library, xenstore
from libmicrovmi_py.errors import DriverUnavailableError, InvalidArgumentError

DOMAINS = {0: "Domain-0", 1: "debian", 2: "7", 7: "windows"}

no_xen = pytest.mark.skipif(any(map(os.path.exists, DOORS)), reason="this host runs under Xen")


def test_no_name_is_an_argument_error() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^Xen driver requires a VM name parameter"):
        Microvmi(driver="xen")


@pytest.mark.alone
@no_xen
def test_a_host_without_xen_is_told_so_at_once() -> None:
    with pytest.raises(DriverUnavailableError, match="does not run under Xen"):
        Microvmi("debian", driver="xen")
    start = time.perf_counter()
    for _ in range(100):
        with pytest.raises(DriverUnavailableError):
            Microvmi("debian", driver="xen")
    assert time.perf_counter() - start < 1.0


@no_xen
def test_the_reason_is_one_line_among_those_of_all_drivers() -> None:
    with pytest.raises(Exception, match=r"(?m)^xen: .*does not run under Xen; run this in dom0$"):
        Microvmi("no-such-machine")


@pytest.mark.parametrize(("name", "domid"), [("debian", 1), ("1", 1), ("windows", 7), ("7", 2), ("2", 2)])
def test_a_domain_is_found_by_its_name_then_by_its_id(name: str, domid: int) -> None:
    assert xenstore.find(name, DOMAINS) == domid


@pytest.mark.parametrize("name", ["deb", "3", "-1", "0x1", "\uff11"])
def test_an_unknown_name_lists_what_there_is(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"no domain .*there are: debian \(1\), 7 \(2\), windows \(7\)$"):
        xenstore.find(name, DOMAINS)


@pytest.mark.parametrize("name", ["0", "Domain-0"])
def test_dom0_cannot_be_named(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="is dom0"):
        xenstore.find(name, DOMAINS)


def test_without_domains_there_are_none() -> None:
    with pytest.raises(InvalidArgumentError, match=r"there are: none$"):
        xenstore.find("debian", {0: "Domain-0"})


def test_the_library_of_the_running_xen_comes_first(tmp_path: Path) -> None:
    (tmp_path / "major").write_text("4\n")
    (tmp_path / "minor").write_text("17\n")
    assert library.control_names(tmp_path)[0] == "libxenctrl.so.4.17"


def test_any_version_that_is_installed_will_do_the_newest_first(tmp_path: Path) -> None:
    for name in (
        "libxenctrl.so.4.9",
        "libxenctrl.so.4.17",
        "libxenctrl.so.4.17.0",
        "libxenctrl.a",
        "libxenstat.so.4.17",
    ):
        (tmp_path / name).touch()
    names = library.control_names(tmp_path / "no-version", (str(tmp_path),))
    found = [name for name in names if name.startswith(str(tmp_path))]
    assert [Path(name).name for name in found][-1] == "libxenctrl.so.4.9"
    assert len(found) == 3
