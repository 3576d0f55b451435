# SPDX-License-Identifier: Apache-2.0
"""QEMU machines as they are listed: what is told of each, that nobody is disturbed, and URIs that open that machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from qemu_simulators import QemuSimulators

from libmicrovmi_py import ListedMachine, MachineState, Microvmi, MicrovmiError, list_vms
from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.drivers.qemu import inquiry
from libmicrovmi_py.errors import InvalidArgumentError
from libmicrovmi_py.params import Parameters

MIB = 1 << 20


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[QemuSimulators]:
    with QemuSimulators(tmp_path) as started:
        yield started


def listed(pid: int, state: MachineState | None = None, reason: str = "") -> ListedMachine:
    """The machine in that process. In that state, for that reason: as soon as it is, as a busy host may be late."""
    end = time.monotonic() + 20
    while True:
        found = [machine for machine in list_vms("qemu") if machine.process_id == pid]
        as_wanted = [one for one in found if state in (None, one.state) and reason in one.reason]
        if as_wanted or time.monotonic() > end:
            assert len(as_wanted) == 1, found
            return as_wanted[0]


def stop(process: subprocess.Popen[Any]) -> None:
    """Stop a process by a signal: all of its threads stand."""
    process.send_signal(signal.SIGSTOP)
    end = time.monotonic() + 20
    while not all("State:\tT" in status.read_text() for status in Path(f"/proc/{process.pid}/task").glob("*/status")):
        assert time.monotonic() < end
        time.sleep(0.01)


def opening(machine: ListedMachine, **parameters: str) -> MicrovmiError:
    """The error that its URI ends with."""
    more = "".join(f"&{name}={value}" for name, value in parameters.items())
    with pytest.raises(MicrovmiError) as caught:
        Microvmi.open(machine.uri + more)
    return caught.value


@contextmanager
def held(path: Path) -> Iterator[socket.socket]:
    """Another client at a monitor, who has been greeted."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.settimeout(10)
        assert b"QMP" in client.recv(4096)
        yield client


def asked(path: Path, command: str, **arguments: str) -> Any:
    """What another client's only command is answered with."""
    with held(path) as client, client.makefile("rb") as lines:
        request = {"execute": command, "arguments": arguments, "id": 1}
        client.sendall(json.dumps(request).encode() + b"\n")
        return next(answer["return"] for answer in map(json.loads, lines) if answer.get("id") == 1)


def test_a_machine_that_runs_is_told_whole(machines: QemuSimulators) -> None:
    uuid = "0f9c4b3e-1111-4222-8333-444455556666"
    started = machines.launch("-m", "2G", "-smp", "2,maxcpus=4", "-uuid", uuid.upper())
    machine = listed(started.process.pid, MachineState.RUNNING)
    assert (machine.driver, machine.name, machine.user_id) == ("qemu", started.name, os.geteuid())
    assert (machine.state, machine.reason) == (MachineState.RUNNING, "")
    assert (machine.memory, machine.vcpus, machine.uuid) == (2048 * MIB, 2, uuid)
    assert machine.uri == f"vmi://qemu/?vm_name={started.name}"
    with Microvmi.open(machine.uri) as opened:  # which alone can tell of maps and of events
        assert opened.abilities.can & ~(Ability.MAP | Ability.EVENTS) == machine.abilities


def test_the_monitor_is_believed_more_than_the_command_line(machines: QemuSimulators) -> None:
    started = machines.launch("-m", "64")
    answers = {
        "query-memory-size-summary": '{"base-memory": 67108864, "plugged-memory": 1073741824}',
        "query-cpus-fast": "[{}, {}, {}]",
        "query-uuid": '{"UUID": "00000000-0000-0000-0000-000000000001"}',
    }
    for command, answer in answers.items():
        asked(started.socket, "play-answer", to=command, answer=answer)
    machine = listed(started.process.pid, MachineState.RUNNING)
    assert (machine.memory, machine.vcpus) == (1088 * MIB, 3)
    assert machine.uuid == "00000000-0000-0000-0000-000000000001"


def test_a_machine_that_was_paused_is_told_so(machines: QemuSimulators) -> None:
    started = machines.launch()
    with Microvmi.open(f"vmi://qemu/?vm_name={started.name}") as vm:
        vm.pause()
        assert listed(started.process.pid, MachineState.PAUSED)
    assert listed(started.process.pid, MachineState.RUNNING)


def test_a_process_that_is_stopped_is_not_waited_for(machines: QemuSimulators) -> None:
    started = machines.launch("-m", "64")
    stop(started.process)
    before = time.monotonic()
    machine = listed(started.process.pid)
    assert time.monotonic() - before < inquiry.ALL + 1.0
    assert (machine.state, machine.abilities, machine.memory) == (MachineState.OTHER, 0, 64 * MIB)
    assert machine.reason == str(opening(machine, timeout="0.2"))
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
        for client in (one, two):  # there is room for two in its queue: nobody has been left there
            client.setblocking(False)
            client.connect(str(started.socket))
    started.process.send_signal(signal.SIGCONT)
    assert listed(started.process.pid, MachineState.RUNNING)


def test_a_monitor_that_another_client_holds_is_left_alone(machines: QemuSimulators) -> None:
    started = machines.launch("-m", "64", "-smp", "3")
    with held(started.socket):
        machine = listed(started.process.pid)
        assert (machine.state, machine.abilities) == (MachineState.UNKNOWN, 0)
        assert (machine.memory, machine.vcpus) == (64 * MIB, 3)
        assert machine.reason == str(opening(machine, timeout="0.5"))
        assert "another client holds the monitor" in machine.reason
        with socket.socket(socket.AF_UNIX) as waiting:  # there is room for two in the queue, and nobody is in it
            waiting.connect(str(started.socket))
    assert listed(started.process.pid, MachineState.RUNNING)


def test_a_second_monitor_that_is_free_is_asked(machines: QemuSimulators, tmp_path: Path) -> None:
    started = machines.launch("-qmp", f"unix:{tmp_path}/second.sock,server=on,wait=off")
    with held(started.socket):
        assert listed(started.process.pid, MachineState.RUNNING)


def test_a_monitor_that_does_not_answer_costs_no_more_than_the_limit(machines: QemuSimulators) -> None:
    started = machines.launch("-fake", "deaf")
    before = time.monotonic()
    machine = listed(started.process.pid)
    assert time.monotonic() - before < inquiry.ALL + 1.0
    assert machine.abilities == 0
    assert machine.reason == str(opening(machine, timeout="0.5"))


def test_what_a_machine_is_in_the_middle_of_is_told(machines: QemuSimulators) -> None:
    machine = listed(machines.launch("-fake", "waiting").process.pid, MachineState.OTHER)
    assert "incoming migration" in machine.reason


def test_a_machine_that_was_migrated_away_is_told_so(machines: QemuSimulators) -> None:
    started = machines.launch()
    asked(started.socket, "play-state", status="postmigrate")
    machine = listed(started.process.pid, reason="migrated away")
    assert machine.abilities == 0
    assert machine.reason == str(opening(machine))


def test_a_qemu_without_a_monitor_is_listed_with_the_words_of_its_opening(tmp_path: Path) -> None:
    program = tmp_path / "qemu-system-x86_64"
    shutil.copy(shutil.which("sleep") or "", program)
    process = subprocess.Popen(["qemu", "600"], executable=program)
    try:
        machine = listed(process.pid)
        assert machine.abilities == 0
        assert machine.reason == str(opening(machine))
    finally:
        process.kill()
        process.wait()


def test_a_process_that_names_another_s_monitor_tells_nothing_of_it(tmp_path: Path, machines: QemuSimulators) -> None:
    started = machines.launch("-m", "64")
    program = tmp_path / "bin" / "qemu-system-x86_64"
    program.parent.mkdir()
    shutil.copy(os.path.realpath("/bin/sh"), program)
    options = ["-name", "liar", "-qmp", f"unix:{started.socket},server=on,wait=off"]
    with subprocess.Popen([program, "-c", "read line", "sh", *options], stdin=subprocess.PIPE) as liar:
        machine = listed(liar.pid, reason="another QEMU listens there")
        assert (machine.name, machine.state, machine.abilities) == ("liar", MachineState.UNKNOWN, 0)
        assert machine.reason == str(opening(machine))
    assert listed(started.process.pid, MachineState.RUNNING)


def test_machines_of_one_name_are_opened_by_their_processes(tmp_path: Path, machines: QemuSimulators) -> None:
    first, second = (machines.launch("-name", "twin") for _ in range(2))
    uris = [listed(one.process.pid).uri for one in (first, second)]
    assert len(set(uris)) == 2
    for one, uri in zip((first, second), uris, strict=True):
        assert f"vm_name={one.process.pid}&started=" in uri
        with Microvmi.open(uri) as opened:
            opened.pause()
            assert listed(one.process.pid, MachineState.PAUSED)


def test_the_uri_of_a_process_opens_no_other_that_got_its_number(machines: QemuSimulators) -> None:
    _, second = (machines.launch("-name", "twin") for _ in range(2))
    uri = listed(second.process.pid).uri
    values = Parameters.from_uri(uri)
    later = f"vmi://qemu/?vm_name={values['vm_name']}&started={int(values['started']) + 1}"
    with pytest.raises(InvalidArgumentError, match="ended: list them anew"):
        Microvmi.open(later)


def test_a_machine_that_is_named_like_a_process_takes_nobody_s_place(machines: QemuSimulators) -> None:
    first = machines.launch("-name", "twin")
    machines.launch("-name", "twin")
    machines.launch("-name", str(first.process.pid))
    with Microvmi.open(listed(first.process.pid).uri) as opened:
        opened.pause()
        assert listed(first.process.pid, MachineState.PAUSED)


HOSTILE = [
    "a b&c=d",
    "Stra\u00dfe \u4e2d\u6587 \U0001f600",
    "x\n\x1b[31mred\x07",
    "\u202egnp.exe",
    "/etc/passwd",
    "100%25",
    "?vm_name=other#",
    "n" * 4096,
    "\udcff\udcfe",
    " ",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_can_be_anything_and_its_uri_opens_that_machine(machines: QemuSimulators, name: str) -> None:
    started = machines.launch("-name", "guest=" + name.replace(",", ",,"))
    machine = listed(started.process.pid)
    assert machine.name.isprintable() or machine.name == name
    assert "\n" not in machine.name
    assert len(machine.name.encode()) <= 127
    assert len(machine.uri) <= 511
    with Microvmi.open(machine.uri) as opened:
        opened.pause()
        assert listed(started.process.pid, MachineState.PAUSED)


def test_many_monitors_that_do_not_answer_share_the_time(machines: QemuSimulators) -> None:
    deaf = [machines.launch("-fake", "deaf") for _ in range(6)]
    good = machines.launch()
    before = time.monotonic()
    found = {machine.process_id: machine for machine in list_vms("qemu")}
    assert time.monotonic() - before < inquiry.ALL + 1.0
    assert listed(good.process.pid, MachineState.RUNNING)
    assert all(found[one.process.pid].reason for one in deaf)


@pytest.mark.parametrize("what", ["hang", "hangup", "refuse", "exit"])
@pytest.mark.parametrize("command", ["query-status", "query-uuid", "qmp_capabilities"])
def test_whatever_a_monitor_does_there_is_one_line(machines: QemuSimulators, what: str, command: str) -> None:
    good, bad = machines.launch(), machines.launch("-fake", f"{what}={command}")
    before = time.monotonic()
    found = {machine.process_id: machine for machine in list_vms("qemu")}
    assert time.monotonic() - before < inquiry.ALL + 1.0
    assert good.process.pid in found
    assert bad.process.pid in found or what == "exit"  # one that ends may be there for a moment


def test_spoiled_answers_are_one_line_each(machines: QemuSimulators) -> None:
    started = machines.launch("-fake", "fuzz")
    for _ in range(60):
        machine = listed(started.process.pid)
        assert machine.state in MachineState
        assert machine.memory < 1 << 53


def test_nothing_is_left_open(machines: QemuSimulators) -> None:
    machines.launch()
    list_vms("qemu")
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        list_vms("qemu")
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_one_connection_is_made_and_five_things_are_asked(machines: QemuSimulators) -> None:
    started = machines.launch()
    listed(started.process.pid)
    commands = ["qmp_capabilities", "query-status", "query-memory-size-summary", "query-cpus-fast", "query-uuid"]
    assert asked(started.socket, "play-log") == [commands]


LIST_BY_PID = """
import json, sys
from libmicrovmi_py import Microvmi, MicrovmiError, list_vms
(one,) = [machine for machine in list_vms("qemu") if machine.process_id == int(sys.argv[1])]
error = ""
if not one.abilities:
    try:
        Microvmi.open(one.uri + "&timeout=1")
    except MicrovmiError as err:
        error = str(err)
print(json.dumps([int(one.state), int(one.abilities), one.reason, error]))
"""


@pytest.mark.parametrize("there", [True, False])
def test_a_machine_of_libvirt_is_told_as_one_that_libvirt_opens(
    machines: QemuSimulators, tmp_path: Path, there: bool
) -> None:
    kept = tmp_path / "libvirt" / "qemu" / "domain-1-x" / "monitor.sock"
    kept.parent.mkdir(parents=True)
    if there:
        (tmp_path / "libvirt" / "libvirt-sock").touch()
    started = machines.launch("-qmp", f"unix:{kept},server=on,wait=off")
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", LIST_BY_PID, str(started.process.pid)]
    with held(started.socket), held(kept):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    state, abilities, reason, error = json.loads(done.stdout)
    assert state == MachineState.UNKNOWN
    assert (bool(abilities), reason) == (there, error)
    assert there or ("another client holds" in reason and "no libvirtd is at" in reason)
