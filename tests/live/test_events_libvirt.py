# SPDX-License-Identifier: Apache-2.0
"""Events of a machine whose monitor libvirt holds: the stub goes over its connection, and it keeps its say."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from libmicrovmi_py import Microvmi
from libmicrovmi_py.events import EventKind, Intercept, PageAccess

from .guest import Boot
from .libvirtd import Domain, Libvirtd
from .looping import COUNTER, LOOP, SECONDS, boot_sector

TURN = Intercept(EventKind.BREAKPOINT, address=LOOP)
NEVER = Intercept(EventKind.BREAKPOINT, address=0x9000)
COUNTED = Intercept(EventKind.VIRTUAL_ACCESS, address=COUNTER, size=4, access=PageAccess.WRITE)
_DRIVE = "<qemu:commandline><qemu:arg value='-drive'/><qemu:arg value='file={},format=raw,if=ide'/></qemu:commandline>"


@pytest.fixture(scope="module")
def loop(boot: Boot) -> Iterator[Domain]:
    """A machine of libvirt's that counts in a loop."""
    with Libvirtd() as libvirtd:
        disk = boot_sector(libvirtd.home / "open")
        disk.chmod(0o666)
        domain = Domain(libvirtd, f"live-{os.getpid()}-loop", mib=64, more=_DRIVE.format(disk))
        libvirtd.virsh("resume", domain.name)
        wait_for_turns(domain)
        yield domain


@pytest.fixture
def domain(loop: Domain) -> Iterator[Domain]:
    """It runs before a test and after it, and has no stub."""
    assert loop.state().startswith("running")
    yield loop
    assert loop.state().startswith("running")
    assert "microvmi" not in loop.human("info chardev")
    wait_for_turns(loop)


def turns(domain: Domain) -> int:
    return int(domain.human(f"xp /1wx {COUNTER:#x}").split()[-1], 16)


def wait_for_turns(domain: Domain) -> None:
    before, end = turns(domain), time.monotonic() + SECONDS
    while turns(domain) == before:
        assert time.monotonic() < end, domain.human("info registers")
        time.sleep(0.05)


def heard(machine: Microvmi, number: int = 3) -> None:
    for _ in range(number):
        event = machine.listen(20)
        assert event is not None
        machine.reply_event(event)


@pytest.mark.parametrize("intercept", [TURN, COUNTED], ids=["breakpoint", "watch"])
def test_events_are_told_and_the_domain_is_as_before(domain: Domain, intercept: Intercept) -> None:
    with domain.open() as machine:
        machine.toggle_intercept(intercept)
        heard(machine, 5)
        assert "microvmi-events" in domain.human("info chardev")


def test_an_event_that_nobody_answers_holds_nothing_after_the_end(domain: Domain) -> None:
    with domain.open() as machine:
        machine.toggle_intercept(TURN)
        assert machine.listen(20) is not None
        assert domain.state().startswith("paused")


def test_a_domain_that_libvirt_paused_is_listened_to_when_it_runs(domain: Domain) -> None:
    domain.libvirtd.virsh("suspend", domain.name)
    with domain.open() as machine:
        machine.toggle_intercept(TURN)
        assert machine.listen(0.3) is None
        assert domain.state().startswith("paused")
        domain.libvirtd.virsh("resume", domain.name)
        heard(machine)


def test_a_suspend_while_it_is_listened_to_stays(domain: Domain) -> None:
    with domain.open() as machine:
        machine.toggle_intercept(NEVER)
        wait_for_turns(domain)
        domain.libvirtd.virsh("suspend", domain.name)
        assert machine.listen(0.5) is None
        count = turns(domain)
    assert domain.state().startswith("paused")
    assert turns(domain) == count
    domain.libvirtd.virsh("resume", domain.name)


def test_a_suspend_and_a_resume_while_it_is_listened_to_change_nothing(domain: Domain) -> None:
    with domain.open() as machine:
        machine.toggle_intercept(NEVER)
        domain.libvirtd.virsh("suspend", domain.name)
        domain.libvirtd.virsh("resume", domain.name)
        wait_for_turns(domain)
        machine.toggle_intercept(TURN)
        heard(machine)


def test_a_resume_by_libvirt_at_an_event_loses_nothing_but_that(domain: Domain) -> None:
    with domain.open() as machine:
        machine.toggle_intercept(COUNTED)
        assert machine.listen(20) is not None
        domain.libvirtd.virsh("resume", domain.name, check=False)
        machine.toggle_intercept(COUNTED, False)
