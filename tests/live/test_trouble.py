# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with a live machine: names that fit nothing or too much, a monitor in use, a machine that dies."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from libmicrovmi_py import DriverUnavailableError, InvalidArgumentError, Microvmi, VmGoneError

from . import oracle
from .capi import Machine, OpenError
from .conftest import NewGuest, OpenMachine, RunProgram
from .guest import Guest
from .marks import on_every_kind_of_ram, on_one_guest

INVALID_ARGUMENT, UNAVAILABLE, VM_GONE = 1, 4, 8
OTHER_NAME = f"live-other-{os.getpid()}"


def test_a_name_that_fits_nothing_lists_what_runs(new_guest: NewGuest, open_machine: OpenMachine) -> None:
    guest = new_guest()
    with pytest.raises(OpenError, match=f"running: .*{guest.name} \\(pid {guest.pid}\\)") as caught:
        open_machine("vmi://qemu/?vm_name=no-such-machine")
    assert caught.value.code == INVALID_ARGUMENT
    with pytest.raises(InvalidArgumentError, match=guest.name):
        Microvmi("no-such-machine", driver="qemu")


def test_a_program_tells_what_runs(new_guest: NewGuest, run: RunProgram, tmp_path: Path) -> None:
    guest = new_guest()
    ended = run("mem-dump", "-o", tmp_path / "dump", "no-such-machine")
    assert ended.returncode == 1
    assert "no suitable microvmi driver available" in ended.stderr
    assert f"{guest.name} (pid {guest.pid})" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_fits_two_machines_lists_both(new_guest: NewGuest, open_machine: OpenMachine) -> None:
    name = f"live-twins-{os.getpid()}"
    first, second = new_guest(name=name), new_guest(name=name)
    with pytest.raises(OpenError) as caught:
        open_machine(f"vmi://qemu/?vm_name={name}")
    assert caught.value.code == INVALID_ARGUMENT
    assert all(f"{name} (pid {guest.pid})" in str(caught.value) for guest in (first, second))
    for guest in (first, second):
        assert open_machine(f"vmi://qemu/?vm_name={guest.pid}").vcpu_count() == 2


@pytest.mark.parametrize("options", [[], ["-name", f"guest={OTHER_NAME},debug-threads=on"]], ids=["plain", "guest"])
def test_found_by_name_process_id_and_socket(
    new_guest: NewGuest, open_machine: OpenMachine, options: list[str]
) -> None:
    guest = new_guest(options=options)
    name = OTHER_NAME if options else guest.name
    for text in (name, guest.pid, guest.monitor.path):
        assert open_machine(f"vmi://qemu/?vm_name={text}").max_address() == guest.config.size
        assert open_machine(f"vmi:///?vm_name={text}").max_address() == guest.config.size


def test_a_monitor_in_use_is_told_in_time(new_guest: NewGuest, open_machine: OpenMachine) -> None:
    guest = new_guest()
    with guest.monitor.held():
        start = time.monotonic()
        with pytest.raises(OpenError, match="another client holds the monitor") as caught:
            open_machine(f"{guest.uri}&timeout=1")
        assert time.monotonic() - start < 5
    assert caught.value.code == UNAVAILABLE
    with guest.monitor.held(), pytest.raises(DriverUnavailableError):
        Microvmi(guest.name, driver="qemu", timeout=0.5)


@on_every_kind_of_ram
def test_memory_is_read_without_the_monitor(guest: Guest, open_machine: OpenMachine) -> None:
    vm = open_machine(f"{guest.uri}&timeout=1")
    with guest.monitor.held():
        assert vm.read(0x1000000, 1 << 20).ok
        assert not vm.pause()
        assert vm.code == UNAVAILABLE
    assert vm.pause()


def test_the_library_leaves_the_monitor_to_others(new_guest: NewGuest, open_machine: OpenMachine) -> None:
    guest = new_guest()
    with open_machine(guest.uri) as vm, guest.monitor.held() as connection:
        assert vm.read(0, 16).ok
        assert connection.execute("query-status")["running"] is False


@pytest.mark.parametrize("ram", ["private", "file", "memfd"])
def test_a_machine_that_dies_is_an_error(new_guest: NewGuest, open_machine: OpenMachine, ram: str) -> None:
    guest = new_guest(ram=ram)
    vm = open_machine(guest.uri)
    assert vm.read(0xF0000, 4096).ok
    guest.kill()
    calls: list[Callable[[], bool]] = [vm.pause, vm.resume, lambda: vm.vcpu_count() >= 0]
    for call in calls:
        assert not call()
        assert vm.code == VM_GONE, vm.error
    assert vm.max_address() == guest.config.size
    read = vm.read(0xF0000, 4096)
    assert read.code == VM_GONE or (read.ok and ram != "private")


@pytest.mark.parametrize("ram", ["private", "file", "memfd"])
def test_a_machine_that_dies_under_a_read_is_no_crash(new_guest: NewGuest, open_machine: OpenMachine, ram: str) -> None:
    guest = new_guest(ram=ram)
    vm = open_machine(guest.uri)
    killer = threading.Timer(0.2, guest.kill)
    killer.start()
    codes = set()
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        codes.add(vm.read(0x100000, 1 << 20).code)
    killer.join()
    assert codes <= {0, VM_GONE}
    assert not vm.pause()
    assert vm.code == VM_GONE


def test_a_machine_that_dies_is_an_error_in_python(new_guest: NewGuest) -> None:
    guest = new_guest()
    with Microvmi(guest.name) as machine:
        guest.kill()
        with pytest.raises(VmGoneError):
            machine.read_physical(0xF0000, 4096)
        with pytest.raises(VmGoneError):
            machine.pause()


def test_a_machine_that_dies_while_paused_can_be_closed(new_guest: NewGuest, open_machine: OpenMachine) -> None:
    guest = new_guest()
    guest.monitor.execute("cont")
    with open_machine(guest.uri) as vm:
        assert vm.pause()
        guest.kill()
    assert open_machine(new_guest().uri).vcpu_count() == 2


@on_one_guest
def test_two_contexts_share_a_machine(guest: Guest, open_machine: OpenMachine) -> None:
    with open_machine(guest.uri) as first, open_machine(guest.uri) as second:
        assert first.pause()
        assert second.pause()
        assert first.read(0x1000000, 1 << 20) == second.read(0x1000000, 1 << 20)
        assert first.registers(1) == second.registers(1)
    assert guest.monitor.status() == "running"


@on_every_kind_of_ram
def test_two_contexts_in_two_threads(paused: Guest, open_machine: OpenMachine) -> None:
    results: list[tuple[bool, object]] = []
    expected = oracle.physical(paused.monitor, 0x1000000, 64), oracle.registers(paused.monitor)[1]["rip"]

    def work(vm: Machine) -> None:
        for _ in range(10):
            values = vm.read(0x1000000, 64).content, vm.registers(1)["rip"]
            results.append((vm.vcpu_count() == 2, values))

    threads = [threading.Thread(target=work, args=(open_machine(paused.uri),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [(True, expected)] * 20


@on_one_guest
def test_one_context_in_many_threads(paused: Guest, vm: Machine) -> None:
    expected = [vm.read(0x1000000 + index * 65536, 65536) for index in range(8)]
    results: list[bool] = []

    def work(index: int) -> None:
        reads = [vm.read(0x1000000 + index * 65536, 65536) == expected[index] for _ in range(50)]
        results.append(all(reads) and vm.registers(index % 2)["rip"] != 0)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [True] * 8
