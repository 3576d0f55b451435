# SPDX-License-Identifier: Apache-2.0
"""What the driver tells about domains: names and ids, those it refuses, the memory map, holes, batches."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import layout

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.base import SupportsEvents
from libmicrovmi_py.errors import InvalidArgumentError, MicrovmiError, NotMappedError, NotSupportedError
from libmicrovmi_py.events import EventKind, Intercept, PageAccess
from libmicrovmi_py.model import MemoryKind

SIZE = 16 << 20
PV = 'name = "paravirtual"\ntype = "pv"\nkernel = "/guests/vmlinux.gz"\nmemory = 96\n'


def xl(*arguments: str) -> str:
    done = subprocess.run(["xl", *arguments], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, f"xl {arguments}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def refused(name: str, kind: type[MicrovmiError], text: str) -> None:
    said = ""
    try:
        Microvmi(name, driver="xen").close()
    except kind as err:
        said = str(err)
    print(said)
    assert text in said, f"{name}: {said or 'it was opened'}"


def check_names() -> None:
    refused("no-such-domain", InvalidArgumentError, "there are: tiny (")
    refused("0", InvalidArgumentError, "dom0")
    refused("Domain-0", InvalidArgumentError, "dom0")
    with Microvmi(xl("domid", "tiny")) as machine:
        assert (machine.driver.name, machine.max_addr) == ("xen", SIZE)


def check_paravirtual() -> None:
    with open("/tmp/pv.cfg", "w") as file:
        file.write(PV)
    xl("create", "-q", "-p", "/tmp/pv.cfg")
    try:
        refused("paravirtual", NotSupportedError, "PV domains are not supported")
    finally:
        xl("destroy", "paravirtual")


def check_map(machine: Microvmi) -> None:
    ranges = machine.memory_map()
    assert (ranges[0].start, ranges[0].size, ranges[0].kind) == (0, SIZE, MemoryKind.RAM)
    assert len(ranges) > 1
    for special in ranges[1:]:
        assert special.kind is MemoryKind.DEVICE
        machine.read_physical(special.start, special.size)
    assert sum(item.size for item in ranges) < SIZE + (1 << 20)


def check_holes(machine: Microvmi) -> None:
    buffer = bytearray(4 << 20)
    assert machine.read_physical_into(SIZE - (1 << 20), buffer) == 1 << 20
    for attempt in (
        lambda: machine.read_physical(SIZE, 1),
        lambda: machine.write_physical(SIZE - 2, b"four"),
        lambda: machine.read_physical(1 << 51, 8),
    ):
        try:
            attempt()
        except NotMappedError:
            continue
        raise AssertionError("a hole was accessed")


def check_batch(machine: Microvmi) -> None:
    addresses = [layout.PATTERN_ADDRESS + 8 * 4099 * number for number in range(200)] + [SIZE, 1 << 40]
    buffers = [bytearray(8) for _ in addresses]
    results = machine.read_physical_batch(list(zip(addresses, buffers, strict=True)))
    assert [result.done for result in results] == [8] * 200 + [0, 0]
    assert [int.from_bytes(buffer, "little") for buffer in buffers[:200]] == addresses[:200]


def check_what_needs_intel(machine: Microvmi) -> None:
    driver = machine.driver
    assert isinstance(driver, SupportsEvents)
    abilities = driver.event_abilities
    print(abilities.why_not)
    assert set(abilities.kinds) == {EventKind.CR, EventKind.MSR, EventKind.BREAKPOINT}
    attempts: tuple[Callable[[], object], ...] = (
        lambda: machine.toggle_intercept(Intercept(EventKind.SINGLE_STEP)),
        lambda: machine.toggle_intercept(Intercept(EventKind.PAGE_ACCESS)),
        lambda: machine.set_page_access(layout.PAGE_ADDRESS, PageAccess.READ),
    )
    for attempt in attempts:
        try:
            attempt()
        except NotSupportedError as err:
            print(err)
        else:
            raise AssertionError("AMD cannot do that")
    assert machine.get_page_access(layout.PAGE_ADDRESS) is PageAccess.ALL


check_names()
check_paravirtual()
with Microvmi("tiny", driver="xen") as opened:
    check_map(opened)
    check_holes(opened)
    check_batch(opened)
    check_what_needs_intel(opened)
