# SPDX-License-Identifier: Apache-2.0
"""Machines of a libvirtd that the tests start: what works through it, what libvirt sees of it, and how it ends.

The table in docs/drivers/qemu.md of what libvirt sees is what these tests saw, cell by cell.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from needs import missing
from transport.other_user import need_root

from libmicrovmi_py import MachineState, Microvmi, SnapshotMethod, list_vms
from libmicrovmi_py.errors import DriverUnavailableError, TimeoutExpiredError

from .conftest import RunProgram
from .firmware import firmware, open_folder, wait_for
from .guest import Boot
from .libvirtd import SESSION_USER, Domain, Libvirtd
from .packages import ROOT
from .test_right_machine import as_user

MIB = 1 << 20
STRANGER = 1
"""A user who is known, and has to do with nothing here."""

PAGE = ROOT / "docs" / "drivers" / "qemu.md"


@pytest.fixture(scope="module")
def libvirtd(boot: Boot) -> Iterator[Libvirtd]:
    """The system's, if we are root."""
    with Libvirtd() as started:
        yield started


@pytest.fixture(scope="module")
def booted(libvirtd: Libvirtd, boot: Boot) -> Domain:
    """A machine with a kernel, whose only monitor libvirt holds."""
    return Domain(libvirtd, f"live-{os.getpid()}-libvirt", boot)


@pytest.fixture
def domain(booted: Domain) -> Iterator[Domain]:
    """It, running; and it runs afterwards."""
    assert booted.state().startswith("running")
    yield booted
    if not booted.state().startswith("running"):
        booted.libvirtd.virsh("resume", booted.name)


@pytest.fixture
def vm(domain: Domain) -> Iterator[Microvmi]:
    """It, opened."""
    with domain.open() as opened:
        yield opened


@pytest.fixture
def folder() -> Iterator[Path]:
    """For sockets."""
    with open_folder() as path:
        yield path


def threads_and_descriptors() -> tuple[int, int]:
    gc.collect()  # what an earlier test left in a cycle
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


# ----------------------------------------------------------------------------------------------------- what works


def test_a_machine_of_libvirt_is_listed_without_a_word_to_its_monitor(libvirtd: Libvirtd) -> None:
    domain = Domain(libvirtd, f"live-{os.getpid()}-listed")
    try:
        (machine,) = [machine for machine in list_vms("qemu") if machine.process_id == domain.pid]
        assert (machine.name, machine.uuid, machine.memory) == (domain.name, domain.uuid, 256 * MIB)
        assert machine.state is MachineState.UNKNOWN
        if not machine.abilities:  # the libvirtd of these tests is where nobody looks for one
            with pytest.raises(DriverUnavailableError) as caught:
                Microvmi.open(machine.uri)
            assert machine.reason == str(caught.value)
        assert "custom monitor control" not in libvirtd.virsh("dominfo", domain.name).stdout
    finally:
        domain.end()


@pytest.mark.parametrize("way", ["name", "uuid", "pid"])
def test_a_machine_of_libvirt_is_found(domain: Domain, way: str) -> None:
    domain.open().close()  # what libvirt's library keeps
    before = threads_and_descriptors()
    with domain.open(str(getattr(domain, way))) as vm:
        assert vm.vcpu_count() == 2
        assert vm.max_addr == 256 * MIB
    del vm
    assert domain.state().startswith("running")
    assert threads_and_descriptors() == before


def test_the_bytes_are_those_that_qemu_saves(domain: Domain, vm: Microvmi) -> None:
    saved = domain.libvirtd.home / "saved"
    saved.touch()
    saved.chmod(0o666)
    vm.pause()
    assert not domain.human(f'pmemsave 0x100000 {64 * MIB} "{saved}"').strip()
    assert vm.read_physical(MIB, 64 * MIB) == saved.read_bytes()


def test_pause_and_resume_are_libvirts_own(domain: Domain, vm: Microvmi) -> None:
    vm.pause()
    assert domain.state() == "paused (user)"
    vm.resume()
    assert domain.state() == "running (unpaused)"


def test_a_close_lets_it_run_by_libvirt(domain: Domain) -> None:
    with domain.open() as vm:
        vm.pause()
        assert domain.state() == "paused (user)"
    assert domain.state() == "running (unpaused)"


def test_a_machine_that_libvirt_paused_stays_paused(domain: Domain) -> None:
    domain.libvirtd.virsh("suspend", domain.name)
    with domain.open() as vm:
        vm.pause()
    assert domain.state() == "paused (user)"


def test_registers_of_all_vcpus_with_msrs_are_told(domain: Domain, vm: Microvmi) -> None:
    vm.pause()
    states = vm.read_states()
    assert len(states) == 2
    text = domain.human("info registers -a")
    for state in states:
        assert f"CR3={state['cr3']:016x}" in text or f"CR3={state['cr3']:08x}" in text
        assert f"RIP={state['rip']:016x}" in text
        assert state["lstar"] >> 47 == (1 << 17) - 1  # an address of the kernel's half


def test_a_register_is_written_by_the_stub(domain: Domain, vm: Microvmi) -> None:
    vm.pause()
    before = vm.read_states()[0]["r15"]
    vm.write_state({"r15": 0x1122334455667788}, 0)
    assert "R15=1122334455667788" in domain.human("info registers")
    vm.write_state({"r15": before}, 0)
    assert domain.state() == "paused (user)"
    assert "microvmi-stub" not in domain.human("info chardev")


def test_a_snapshot_is_taken_and_the_machine_runs(domain: Domain, vm: Microvmi) -> None:
    with vm.snapshot() as snapshot:
        assert len(snapshot.read_states()) == 2
        assert b"Linux version" in snapshot.read_physical(16 * MIB, 32 * MIB)
    assert domain.state().startswith("running")


def test_a_snapshot_in_the_background_is_taken_of_a_qemu_that_may(boot: Boot) -> None:
    need_root()
    with Libvirtd(more='user = "root"\ngroup = "root"\n') as started:
        machine = Domain(started, f"live-{os.getpid()}-root", mib=64)
        started.virsh("resume", machine.name)
        taken: list[Microvmi] = []
        with machine.open() as vm:
            events = machine.events(lambda: taken.append(vm.snapshot()))
            if taken[0].snapshot_info.method is not SnapshotMethod.BACKGROUND:
                missing("no background snapshot: the kernel needs userfaultfd with write protection")
            assert events == ["Suspended Paused", "Resumed Unpaused"]
            assert machine.state() == "running (unpaused)"
            assert "background-snapshot: off" in machine.human("info migrate_capabilities")
        taken[0].close()


def test_a_free_monitor_comes_before_libvirts(libvirtd: Libvirtd) -> None:
    words = ("-qmp", f"unix:{libvirtd.home}/open/second,server=on,wait=off")
    arguments = "".join(f"<qemu:arg value='{word}'/>" for word in words)
    more = f"<qemu:commandline>{arguments}</qemu:commandline>"
    machine = Domain(libvirtd, f"live-{os.getpid()}-second", mib=64, more=more)
    with machine.open(socket="/nowhere") as vm:
        assert vm.vcpu_count() == 2
    machine.end()


# ------------------------------------------------------------------------------------------------- what libvirt sees


def close_paused(vm: Microvmi) -> None:
    vm.pause()
    vm.close()


SEEN: dict[str, tuple[bool, Callable[[Microvmi], object]]] = {
    "memory map": (False, lambda vm: vm.memory_map()),
    "memory, read and written": (False, lambda vm: vm.write_physical(0x1000, vm.read_physical(0x1000, 8))),
    "pause": (False, lambda vm: vm.pause()),
    "resume": (True, lambda vm: vm.resume()),
    "registers": (False, lambda vm: vm.read_states()),
    "registers of a paused machine": (True, lambda vm: vm.read_states()),
    "write registers": (True, lambda vm: vm.write_state({"r15": vm.read_states()[0]["r15"]}, 0)),
    "snapshot (paused copy)": (False, lambda vm: vm.snapshot(pause_only=True).close()),
    "snapshot of a paused machine": (True, lambda vm: vm.snapshot().close()),
    "close of a machine that we paused": (True, lambda vm: vm.close()),
}
"""Whether the machine is paused by us before, and what is done then."""


def rows() -> dict[str, list[str]]:
    """The table on the page: after an operation the state that libvirt tells, and the events that it told."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and line.count("|") == 4]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in cells}


@pytest.mark.parametrize("operation", SEEN)
def test_what_libvirt_sees_is_what_the_page_says(domain: Domain, operation: str) -> None:
    paused, act = SEEN[operation]
    with domain.open() as vm:
        if paused:
            vm.pause()
        events = domain.events(lambda: act(vm))
        found = [domain.state(), ", ".join(events) or "none"]
    assert rows().get(operation) == found, f"{PAGE.name}: | {operation} | {' | '.join(found)} |"


def test_the_domain_is_tainted(domain: Domain, vm: Microvmi) -> None:
    assert "custom monitor control" in domain.libvirtd.virsh("dominfo", domain.name).stdout


# ------------------------------------------------------------------------------------------------------------ ends


def test_a_libvirtd_that_is_killed_leaves_its_monitor_to_us(domain: Domain) -> None:
    """QEMU's monitor is free then: root, and its own user, may open its socket."""
    libvirtd = domain.libvirtd
    with domain.open() as vm:
        vm.pause()
        states = [dict(state) for state in vm.read_states()]
        libvirtd.kill()
        try:
            assert [dict(state) for state in vm.read_states()] == states
            vm.resume()
            vm.pause()
        finally:
            libvirtd.start()
        assert domain.state().startswith("paused")
        assert len(vm.read_states()) == 2
    assert domain.state().startswith("running")


def test_a_libvirtd_that_is_killed_while_a_snapshot_is_taken_leaves_nothing_paused(domain: Domain) -> None:
    """It paused the machine for it, and is no more when the machine is to run again."""
    seen: list[str] = []

    def kill(done: int, total: int) -> None:
        """At the first word of the second half, for which the machine stands."""
        if not seen and 2 * done >= total:
            seen.append(domain.state())
            domain.libvirtd.kill()

    with domain.open() as vm:
        try:
            with suppress(DriverUnavailableError):  # the connection broke, which nobody may have noticed in time
                vm.snapshot(pause_only=True, progress=kill).close()
        finally:
            domain.libvirtd.start()
        assert seen == ["paused (user)"]
        wait_for_run(domain)
    wait_for_run(domain)


def wait_for_run(domain: Domain) -> None:
    """A libvirtd that has just begun says of a while what the one before it knew."""
    end = time.monotonic() + 60
    while not domain.state().startswith("running"):
        assert time.monotonic() < end, domain.state()
        time.sleep(0.1)


def test_the_end_of_a_program_that_left_it_paused_lets_it_run(domain: Domain, run: RunProgram) -> None:
    uri = f"vmi://qemu/?vm_name={domain.name}&libvirt={domain.libvirtd.socket}"
    assert run("leave-paused", uri, "exit").stdout == "paused\n"
    assert domain.state() == "running (unpaused)"


def test_a_machine_that_cannot_be_resumed_is_told(
    domain: Domain, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As it is with who has no right to QEMU's monitor, when libvirtd has ended."""
    libvirtd, vm = domain.libvirtd, domain.open()
    vm.pause()
    libvirtd.kill()
    hidden = list(libvirtd.home.glob("**/monitor.sock"))
    names = [path.rename(path.with_name("hidden")) for path in hidden]
    try:
        with pytest.raises(DriverUnavailableError, match=r"libvirt.* cannot be asked: .*Connection refused"):
            vm.read_states()
        with pytest.raises(DriverUnavailableError, match="Connection refused"):
            vm.close()
    finally:
        for name, path in zip(names, hidden, strict=True):
            name.rename(path)
        libvirtd.start()
    assert f"virsh resume {domain.name}" in caplog.text
    assert domain.state().startswith("paused")


def test_a_libvirtd_that_hangs_is_told_in_time(domain: Domain) -> None:
    with domain.open(timeout=1) as vm:
        domain.libvirtd.kill(signal.SIGSTOP)
        try:
            begin = time.monotonic()
            with pytest.raises(TimeoutExpiredError, match=f"kill -CONT {domain.libvirtd.pid}"):
                vm.pause()
            assert time.monotonic() - begin < 3
        finally:
            domain.libvirtd.kill(signal.SIGCONT)
        vm.pause()
        assert domain.state() == "paused (user)"
    assert domain.state() == "running (unpaused)"


# ------------------------------------------------------------------------------------------------------ what is not


def test_without_a_libvirtd_that_is_told_at_once(domain: Domain) -> None:
    begin = time.monotonic()
    with pytest.raises(DriverUnavailableError, match="No such file or directory") as caught:
        domain.open(socket=f"{domain.libvirtd.home}/nowhere")
    assert time.monotonic() - begin < 1
    assert "\n" not in str(caught.value)


def test_who_only_claims_to_be_a_domain_is_found_out(domain: Domain, folder: Path) -> None:
    device = f"socket,id=charmonitor,path={folder}/q,server=on,wait=off"
    monitor = ("-chardev", device, "-mon", "chardev=charmonitor,mode=control", "-uuid", domain.uuid)
    with socket.socket(socket.AF_UNIX) as held, firmware(folder, "-S", *monitor) as guest:
        wait_for((folder / "q").exists, guest.process)
        held.connect(str(folder / "q"))
        assert held.recv(1) == b"{"
        with pytest.raises(DriverUnavailableError, match=f"is another process than {guest.pid}"):
            domain.open(guest.name)


def in_another_process(code: str, around: Sequence[str], environment: Mapping[str, str]) -> str:
    """What Python code on this tree prints, run by another user."""
    source = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom libmicrovmi_py import Microvmi\n{code}"
    command = [*around, sys.executable, "-B", "-c", source]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout + done.stderr


OPENING = """
try: print(Microvmi({!r}, driver='qemu', timeout=5{}))
except Exception as err: print(type(err).__name__, err)
"""


def opening(domain: Domain) -> str:
    return OPENING.format(domain.name, f", libvirt={str(domain.libvirtd.socket)!r}")


def test_who_may_not_look_into_the_process_is_told_so(domain: Domain) -> None:
    need_root()
    told = in_another_process(opening(domain), as_user(STRANGER), {})
    assert told.startswith("PermissionDeniedError")
    assert told.count("\n") == 1


def test_who_may_not_use_the_libvirtd_is_told_so(domain: Domain) -> None:
    need_root()
    domain.libvirtd.socket.chmod(0o700)
    try:
        told = in_another_process(opening(domain), as_user(STRANGER), {})
    finally:
        domain.libvirtd.socket.chmod(0o777)
    assert told.startswith("PermissionDeniedError")
    assert "in the group libvirt" in told
    assert told.count("\n") == 1


@pytest.fixture(scope="module")
def session(boot: Boot) -> Iterator[Domain]:
    """A machine without a kernel of another user's session."""
    need_root()
    with Libvirtd(SESSION_USER) as started:
        yield Domain(started, f"live-{os.getpid()}-session", mib=64)


def test_root_reaches_a_session(session: Domain) -> None:
    with session.open() as vm:
        vm.resume()
        assert session.state().startswith("running")
        vm.pause()
        assert session.state() == "paused (user)"
        assert len(vm.read_states()) == 2


def test_a_user_reaches_his_session_where_it_usually_is(session: Domain) -> None:
    told = in_another_process(
        f"vm = Microvmi({session.name!r}, driver='qemu'); print(vm.vcpu_count())",
        as_user(SESSION_USER),
        session.libvirtd.environment | {"PATH": os.environ["PATH"]},
    )
    assert told == "2\n"


def test_a_machine_of_a_session_is_listed_as_one_that_can_be_opened(session: Domain) -> None:
    told = in_another_process(
        "from libmicrovmi_py import list_vms\n"
        "from libmicrovmi_py.abilities import Ability\n"
        f"(found,) = [machine for machine in list_vms('qemu') if machine.name == {session.name!r}]\n"
        "print(found.uuid, found.memory, repr(found.reason), sep='\\n')\n"
        "print(Microvmi.open(found.uri).abilities.can & ~Ability.EVENTS == found.abilities)",
        as_user(SESSION_USER),
        session.libvirtd.environment | {"PATH": os.environ["PATH"]},
    )
    uuid, memory, reason, same = told.splitlines()
    assert (uuid, memory) == (session.uuid, str(64 * MIB))
    assert reason == "''"
    assert same == "True"


def test_a_session_of_another_user_is_told_as_such(session: Domain) -> None:
    told = in_another_process(OPENING.format(session.name, ""), as_user(STRANGER), {"XDG_RUNTIME_DIR": "/nowhere"})
    assert f"session of user {SESSION_USER}" in told
    assert told.count("\n") == 1
