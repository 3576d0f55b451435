# SPDX-License-Identifier: Apache-2.0
"""Answers that a QEMU never gives, to single commands: they are told, and take no time and no memory to speak of."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from transport.test_qmp import Peer, connected

from libmicrovmi_py.drivers.qemu import stops, vcpus
from libmicrovmi_py.drivers.qemu.memory import Extent, HostMemory, read_extents
from libmicrovmi_py.drivers.qemu.vcpus import parse_registers
from libmicrovmi_py.errors import IoError
from libmicrovmi_py.model import MemoryKind
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.qmp import QmpClient

ROW = "  {:016x}-{:016x} (prio 0, ram): {} @{:016x}\n"
HEAD = 'FlatView #0\n AS "memory", root: system\n'
ANSWERS: dict[str, Any] = {
    "query-memdev": [],
    "query-memory-devices": [],
    "query-migrate": {},
    "qom-list": [],
    "query-status": {"status": "running", "running": True},
    "query-cpus-fast": [{"cpu-index": 0}],
    "stop": {},
    "cont": {},
    "info mtree -f": HEAD + ROW.format(0, 0xFFF, "ram", 0),
    "gpa2hva": "Host virtual address for 0x0 (ram) is 0x1000\n",
    "info registers": "EAX=00000001\nEIP=00000000 EFL=00000002\n",
}


@contextmanager
def monitor(command: str, answer: Any) -> Iterator[QmpClient]:
    """A client of a monitor that gives one wrong answer."""
    answers = {**ANSWERS, command: answer}

    def server(peer: Peer) -> None:
        peer.negotiate()
        while True:
            try:
                request: Any = peer.request()
            except ValueError:
                return
            line = request.get("arguments", {}).get("command-line", "")
            name = "gpa2hva" if line.startswith("gpa2hva") else line or request["execute"]
            unknown = {"error": {"class": "CommandNotFound", "desc": f"no {name}"}}
            peer.send({**({"return": answers[name]} if name in answers else unknown), "id": request["id"]})

    with connected(server, seconds=20) as client:
        client.greet(Deadline(5))
        yield client


def registers(client: QmpClient) -> object:
    return vcpus.registers(client, 0)


def run(client: QmpClient) -> object:
    stops.run(client, whoever=True)
    return None


@pytest.mark.parametrize("action", [read_extents, stops.run_state, run, vcpus.vcpu_indexes, registers])
def test_right_answers_are_taken(action: Callable[[QmpClient], object]) -> None:
    with monitor("query-memdev", []) as client:
        action(client)


WRONG = [
    (read_extents, "query-memdev", {}),
    (read_extents, "query-memdev", [1]),
    (read_extents, "query-memdev", [{"id": 7}]),
    (read_extents, "qom-list", None),
    (read_extents, "qom-list", [{}]),
    (read_extents, "qom-list", [{"type": "ivshmem", "name": []}]),
    (read_extents, "info mtree -f", 5),
    (read_extents, "info mtree -f", HEAD + ROW.format(0, 1 << 63, "ram", 0)),
    (read_extents, "info mtree -f", HEAD + ROW.format(0x1000, 0, "ram", 0)),
    (read_extents, "info mtree -f", HEAD + ROW.format(0, 10**40, "ram", 0)),
    (read_extents, "gpa2hva", None),
    (read_extents, "gpa2hva", f"Host virtual address for 0x0 (ram) is 0x{'f' * 40}\n"),
    (read_extents, "query-memory-devices", {}),
    (read_extents, "query-memory-devices", [1]),
    (read_extents, "query-memory-devices", [{"data": []}]),
    (read_extents, "query-memory-devices", [{"data": {"addr": -1, "size": 1}}]),
    (read_extents, "query-memory-devices", [{"data": {"addr": 0, "size": 10**40}}]),
    (stops.run_state, "query-status", []),
    (stops.run_state, "query-status", {}),
    (stops.run_state, "query-status", {"status": 1}),
    (stops.stop, "query-status", {"status": None}),
    (stops.migrates, "query-migrate", {"status": []}),
    (run, "query-status", 7),
    (vcpus.vcpu_indexes, "query-cpus-fast", {}),
    (vcpus.vcpu_indexes, "query-cpus-fast", []),
    (vcpus.vcpu_indexes, "query-cpus-fast", [{}]),
    (vcpus.vcpu_indexes, "query-cpus-fast", [{"cpu-index": "0"}]),
    (vcpus.vcpu_indexes, "query-cpus-fast", [{"cpu-index": True}]),
    (vcpus.vcpu_indexes, "query-cpus-fast", [{"cpu-index": 10**40}]),
    (vcpus.vcpu_indexes, "query-cpus-fast", [{"cpu-index": 0}] * 70_000),
    (registers, "info registers", []),
    (registers, "info registers", "EIP=00000000\nCS =0000 " + "f" * 40 + " 0 0\n"),
]


@pytest.mark.parametrize(("action", "command", "answer"), WRONG)
def test_an_answer_of_the_wrong_shape_is_an_io_error(
    action: Callable[[QmpClient], object], command: str, answer: Any
) -> None:
    with monitor(command, answer) as client, pytest.raises(IoError):
        action(client)


TOO_LARGE = ["RAX=" + "f" * 17, "CS =0000 0 " + "f" * 9, "GDT= " + "f" * 17 + " 0", "CR3=" + "1" * 40]


@pytest.mark.parametrize("line", TOO_LARGE)
def test_a_value_that_no_register_can_hold_is_an_io_error(line: str) -> None:
    with pytest.raises(IoError):
        parse_registers(f"RIP=0000000000000000\n{line}\n")


@pytest.mark.alone
def test_a_text_made_to_be_searched_for_ever_is_read_in_no_time() -> None:
    started = time.monotonic()
    with (
        monitor("gpa2hva", "Host virtual address for 0x0 (" * 8000) as client,
        pytest.raises(IoError, match="keeps changing"),
    ):
        read_extents(client)
    assert time.monotonic() - started < 3


MAPPINGS = 30_000

_MANY = f"""
import ctypes, sys
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
place = libc.mmap(None, ctypes.c_size_t({2 * MAPPINGS} * 4096), 3, 0x22, -1, ctypes.c_long(0))
for page in range(0, {2 * MAPPINGS}, 2):
    libc.mmap(ctypes.c_void_p(place + page * 4096), ctypes.c_size_t(4096), 1, 0x31, -1, ctypes.c_long(0))
print(place, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def crowded() -> Iterator[tuple[Process, int]]:
    """A process with nearly as many mappings as the kernel allows: each page is private, the next shared."""
    command = [sys.executable, "-c", _MANY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        place = int(child.stdout.readline())
        process = Process.find(child.pid)
        assert process is not None
        yield process, place
        child.kill()


@pytest.mark.alone
def test_many_ranges_in_a_process_of_many_mappings_take_no_time(crowded: tuple[Process, int]) -> None:
    process, place = crowded
    last = place + 0x1000 + ((MAPPINGS - 4000) << 13)
    extents = [Extent(at << 13, 0x1000, MemoryKind.RAM, "ram", 0, last + (at << 13)) for at in range(4000)]
    memory, started = HostMemory(process), time.monotonic()
    assert len(memory.regions(extents, filled=True)) == 4000
    assert time.monotonic() - started < 5
    memory.close()


@pytest.mark.alone
def test_ranges_that_lie_in_more_mappings_than_can_be_are_an_error(crowded: tuple[Process, int]) -> None:
    process, place = crowded
    size = MAPPINGS * 0x2000
    extents = [Extent(at * size, size, MemoryKind.RAM, "ram", 0, place) for at in range(1000)]
    memory, started = HostMemory(process), time.monotonic()
    with pytest.raises(IoError, match="more than 65536 mappings"):
        memory.regions(extents, filled=True)
    assert time.monotonic() - started < 5
    memory.close()


@pytest.mark.alone
def test_no_more_files_are_mapped_than_a_qemu_has(crowded: tuple[Process, int]) -> None:
    process, place = crowded
    memory, started = HostMemory(process), time.monotonic()
    regions = memory.regions([Extent(0, 0x2000 * 3000, MemoryKind.RAM, "ram", 0, place)], filled=True)
    assert len(regions) == 6000
    assert sum(region.source.reach().view is not None for region in regions) <= 288
    assert time.monotonic() - started < 10
    memory.close()
