# SPDX-License-Identifier: Apache-2.0
"""Domains as they are listed, over the simulator."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from libmicrovmi_py import MachineState, list_vms
from libmicrovmi_py.abilities import Ability, with_snapshots
from libmicrovmi_py.drivers.xen import DOORS, XenDriver, listing
from libmicrovmi_py.model import DriverType

OPEN_ONLY = Ability.MAP | Ability.PAGE_ACCESS | Ability.EVENTS

if TYPE_CHECKING:
    from drivers.xen.simulator import Simulator


def test_a_domain_is_told_whole_and_dom0_is_not_among_them(xen: Simulator) -> None:
    (domain,) = listing.machines(XenDriver, xen.libraries)
    assert (domain.driver, domain.driver_type, domain.name) == ("xen", DriverType.XEN, "tiny")
    assert (domain.uri, domain.reason) == ("vmi://xen/?vm_name=tiny", "")
    assert (domain.state, domain.vcpus) == (MachineState.RUNNING, 3)
    assert domain.uuid == "0f9c4b3e-1111-4222-8333-444455556666"
    with xen.open() as machine:
        assert with_snapshots(domain.abilities) == machine.abilities.can & ~OPEN_ONLY
        assert domain.memory >= sum(item.size for item in machine.memory_map())


def test_a_paused_domain_is_told_so_and_stays_so(xen: Simulator) -> None:
    xen.set("paused", 1)
    (domain,) = listing.machines(XenDriver, xen.libraries)
    assert domain.state is MachineState.PAUSED
    assert xen.get("paused") == 1


def test_a_domain_that_ends_is_left_out(xen: Simulator) -> None:
    xen.set("dying", 1)
    assert list(listing.machines(XenDriver, xen.libraries)) == []


@pytest.mark.parametrize(
    ("names", "domid", "opens"),
    [
        ({0: "Domain-0", 1: "a"}, 1, "a"),
        ({1: "a", 2: "a"}, 2, "2"),
        ({0: "a", 1: "a"}, 1, "1"),
        ({1: "a", 2: "a", 3: "2"}, 2, ""),
        ({1: "a\nb"}, 1, "1"),
        ({1: ""}, 1, "1"),
    ],
)
def test_a_name_or_an_id_opens_a_domain_where_it_is_no_other_s(names: dict[int, str], domid: int, opens: str) -> None:
    assert listing.uris("xen", names)[domid] == (f"vmi://xen/?vm_name={opens}" if opens else "")


@pytest.mark.skipif(any(map(os.path.exists, DOORS)), reason="this host runs under Xen")
def test_a_host_without_xen_has_none() -> None:
    assert list_vms("xen") == []
