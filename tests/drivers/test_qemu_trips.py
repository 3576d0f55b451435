# SPDX-License-Identifier: Apache-2.0
"""How often a call connects to QEMU's monitor, and what it asks there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from drivers.qemu_with_monitor import QemuWithMonitor, qemu_with_monitor

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.qemu import QemuDriver
from libmicrovmi_py.errors import InvalidArgumentError

PLUGS = ["qom-list", "qom-list", "query-memory-devices"]
LOOK = ["qmp_capabilities", "query-status"]
VIEW = "info mtree -f"


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[QemuWithMonitor]:
    with qemu_with_monitor(tmp_path) as qemu:
        yield qemu


@pytest.fixture
def machine(qemu: QemuWithMonitor) -> Iterator[Microvmi]:
    with Microvmi.open(qemu.uri) as machine:
        qemu.execute("play-log")
        yield machine


def asked(qemu: QemuWithMonitor) -> list[list[str]]:
    """What each connection since the last time asked."""
    log: list[list[str]] = qemu.execute("play-log")
    return log


@pytest.mark.parametrize("kind", ["plain", "shared"])
def test_opening_asks_all_on_one_connection_and_a_host_address_once_a_block(tmp_path: Path, kind: str) -> None:
    with qemu_with_monitor(tmp_path, "-fake", kind) as qemu, Microvmi.open(qemu.uri):
        (log,) = asked(qemu)
    begin = [*LOOK, "query-migrate", "query-target", "query-migrate-capabilities", "query-chardev"]
    begin += [f"{VIEW} -o", "query-memdev"]
    hosts = ["gpa2hva 0x0", "gpa2hva 0xfd000000"]
    if kind == "plain":
        assert log == [*begin, *hosts]
    else:
        assert log == [*begin, *PLUGS, *hosts, "gpa2hva 0x8000000000", "qom-get"]


def test_a_pause_and_a_resume_are_one_connection_each(qemu: QemuWithMonitor, machine: Microvmi) -> None:
    devices = ["gpa2hva 0xfd000000", "gpa2hva 0x8000000000"]
    machine.pause()
    assert asked(qemu) == [[*LOOK, "query-migrate", "stop", VIEW, *devices]]
    machine.resume()
    assert asked(qemu) == [[*LOOK, "cont"]]


ALL_REGISTERS = ["query-migrate", "query-cpus-fast", "info registers -a"]
SAVE = ["add-fd", "xen-save-devices-state"]
VERSION = "query-version"
"""Asked once, before the first state is saved."""
CALLS: dict[str, tuple[Callable[[Microvmi], object], list[str]]] = {
    "vCPUs": (lambda machine: machine.vcpu_count(), ["query-cpus-fast"]),
    "registers": (lambda machine: machine.read_registers(1), ["query-migrate", "query-cpus-fast", "info registers"]),
    "all registers": (lambda machine: machine.read_states(), [*ALL_REGISTERS, VERSION, *SAVE, "remove-fd"]),
    "map": (
        lambda machine: machine.memory_map(),
        ["query-migrate", VIEW, "gpa2hva 0xfd000000", "gpa2hva 0x8000000000"],
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_so_is_every_other_call(qemu: QemuWithMonitor, machine: Microvmi, name: str) -> None:
    call, commands = CALLS[name]
    call(machine)
    assert asked(qemu) == [[*LOOK, *commands]]


def test_all_registers_of_a_machine_that_stands_are_one_connection(qemu: QemuWithMonitor, machine: Microvmi) -> None:
    machine.pause()
    asked(qemu)
    for again in ([], ["query-fdsets"]):
        machine.read_states()
        save = [VERSION, *SAVE] if not again else SAVE[1:]
        assert asked(qemu) == [[*LOOK, *ALL_REGISTERS, *again, *save]]


def test_the_map_of_a_machine_that_we_keep_paused_is_one_connection_too(
    qemu: QemuWithMonitor, machine: Microvmi
) -> None:
    machine.pause()
    asked(qemu)
    machine.memory_map()
    assert len(asked(qemu)) == 1


def test_a_close_looks_and_lets_the_machine_run_on_one_connection(qemu: QemuWithMonitor, machine: Microvmi) -> None:
    machine.pause()
    asked(qemu)
    machine.close()
    assert asked(qemu) == [[*LOOK, "cont"]]
    assert qemu.status() == "running"


def test_a_close_that_waits_lets_others_have_the_monitor(qemu: QemuWithMonitor, machine: Microvmi) -> None:
    machine.pause()
    qemu.execute("play-state", status="save-vm")
    closing = threading.Thread(target=machine.close)
    started = time.monotonic()
    closing.start()
    while not asked(qemu):  # it has looked, and waits
        time.sleep(0.01)
    qemu.execute("play-state", status="paused")
    assert time.monotonic() - started < 2
    closing.join()
    assert qemu.status() == "running"


def test_a_connection_is_made_anew_after_an_error(qemu: QemuWithMonitor, machine: Microvmi) -> None:
    driver = machine.driver
    assert isinstance(driver, QemuDriver)
    with driver.session():
        with pytest.raises(InvalidArgumentError):
            driver.read_states((7,))
        assert driver.vcpu_count() == 2
        assert driver.vcpu_count() == 2
    assert [log[-1] for log in asked(qemu)] == ["query-cpus-fast"] * 2
    assert qemu.status() == "running"  # nobody holds the monitor
