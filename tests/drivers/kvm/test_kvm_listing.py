# SPDX-License-Identifier: Apache-2.0
"""Machines that wait for an introspector, as they are listed; the processes only look like QEMU."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from qemu_simulators import QemuSimulators

from libmicrovmi_py import list_vms

ROOT = Path(__file__).resolve().parents[3]

LIST = """
import json
from libmicrovmi_py import list_vms
print(json.dumps({m.process_id: [m.name, m.uri, m.reason, int(m.abilities)] for m in list_vms("kvm")}))
"""


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[QemuSimulators]:
    with QemuSimulators(tmp_path) as started:
        yield started


def listed(libkvmi: str) -> dict[int, list[object]]:
    """By process: name, URI, reason, abilities, as a program tells them that finds libkvmi where the loader looks."""
    where = {"LD_LIBRARY_PATH": str(Path(libkvmi).parent), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", LIST], env={**os.environ, **where}, capture_output=True, text=True, check=True
    )
    return {int(pid): machine for pid, machine in json.loads(done.stdout).items()}


def introspected(path: object) -> list[str]:
    return ["-chardev", f"socket,path={path},id=one,reconnect=10", "-object", "introspection,id=kvmi,chardev=one"]


def test_a_machine_that_waits_is_listed_with_its_socket(machines: QemuSimulators, tmp_path: Path, libkvmi: str) -> None:
    path = tmp_path / "introspector here"
    started = machines.launch(*introspected(path))
    plain = machines.launch()
    found = listed(libkvmi)
    name, uri, reason, abilities = found[started.process.pid]
    assert (name, reason) == (started.name, "")
    assert uri == f"vmi://kvm/?kvm_unix_socket={str(path).replace(' ', '%20')}"
    assert abilities
    assert plain.process.pid not in found


def test_two_machines_of_one_socket_and_a_socket_in_use_are_no_machine_to_open(
    machines: QemuSimulators, tmp_path: Path, libkvmi: str
) -> None:
    twins = [machines.launch(*introspected(tmp_path / "both")) for _ in range(2)]
    used = machines.launch(*introspected(tmp_path / "used"))
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "used"))
        other.listen()
        found = listed(libkvmi)
    for one in twins:
        assert "2 machines connect to" in str(found[one.process.pid][2])
    assert "another introspector listens at" in str(found[used.process.pid][2])
    assert not any(found[one.process.pid][3] for one in (*twins, used))


def test_without_libkvmi_there_are_none(machines: QemuSimulators, tmp_path: Path) -> None:
    machines.launch(*introspected(tmp_path / "socket"))
    assert list_vms("kvm") == []
