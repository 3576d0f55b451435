# SPDX-License-Identifier: Apache-2.0
"""Answers that a QEMU never gives, to single commands: they are told, and take no time and no memory to speak of."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from transport.test_qmp import Peer, connected

from libmicrovmi_py.drivers.qemu import stops, vcpus
from libmicrovmi_py.drivers.qemu.devicestate import StateFile
from libmicrovmi_py.drivers.qemu.flatview import Extent
from libmicrovmi_py.drivers.qemu.infotext import parse_x86
from libmicrovmi_py.drivers.qemu.layout import Layout
from libmicrovmi_py.drivers.qemu.memory import HostMemory
from libmicrovmi_py.errors import IoError
from libmicrovmi_py.model import MemoryKind
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.qmp import QmpClient

ROW = "  {:016x}-{:016x} (prio 0, ram): {} @{:016x}\n"
HEAD = 'FlatView #0\n AS "memory", root: system\n'
ANSWERS: dict[str, Any] = {
    "query-memdev": [{"id": "shm"}],
    "query-memory-devices": [],
    "query-migrate": {},
    "query-version": {"qemu": {"major": 7, "minor": 2, "micro": 0}},
    "qom-list": [],
    "query-status": {"status": "running", "running": True},
    "query-cpus-fast": [{"cpu-index": 0}],
    "stop": {},
    "cont": {},
    "info mtree -f": HEAD + ROW.format(0, 0xFFF, "ram", 0) + ROW.format(0x1000, 0x1FFF, "shm", 0),
    "gpa2hva 0x0": "Host virtual address for 0x0 (ram) is 0x1000\n",
    "gpa2hva 0x1000": "Host virtual address for 0x1000 (shm) is 0x3000\n",
    "add-fd": {"fdset-id": 1, "fd": 9},
    "remove-fd": {},
    "query-fdsets": [{"fdset-id": 2}, {}, {"fdset-id": "3"}],
    "xen-save-devices-state": {},
    "info registers": "EAX=00000001\nEIP=00000000 EFL=00000002\n",
}


@contextmanager
def monitor(command: str, answer: Any) -> Iterator[QmpClient]:
    """A client of a monitor that gives one wrong answer."""
    answers = {**ANSWERS, command: answer}

    def server(peer: Peer) -> None:
        peer.negotiate()
        with contextlib.suppress(ValueError, OSError):  # the client hung up, maybe before it had been answered
            while True:
                reply(peer, peer.request())

    def reply(peer: Peer, request: Any) -> None:
        line = request.get("arguments", {}).get("command-line", "")
        name = line.removesuffix(" -o") or request["execute"]
        unknown = {"error": {"class": "CommandNotFound", "desc": f"no {name}"}}
        peer.send({**({"return": answers[name]} if name in answers else unknown), "id": request["id"]})

    with connected(server, seconds=20) as client:
        client.greet(Deadline(5))
        yield client


def read_extents(client: QmpClient) -> object:
    layout = Layout()
    return layout.take(client, layout.ask(client))


def run_state(client: QmpClient) -> object:
    return stops.run_state(stops.word(client.ask("query-status")))


def migration(client: QmpClient) -> object:
    return stops.migration(client.ask("query-migrate"))


def registers(client: QmpClient) -> object:
    return vcpus.states(client, stops.run_state, StateFile, (0,))


def saved(client: QmpClient) -> object:
    file = StateFile()
    for stands in (True, True, False):
        file.save(client, {}, stands=stands)
    file.forget(client)
    return None


def run(client: QmpClient) -> object:
    stops.run(client, stops.run_state(stops.word(client.ask("query-status"))), whoever=True)
    return None


@pytest.mark.parametrize("action", [read_extents, run_state, migration, run, vcpus.Vcpus.of, registers, saved])
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
    (read_extents, "gpa2hva 0x0", None),
    (read_extents, "gpa2hva 0x0", f"Host virtual address for 0x0 (ram) is 0x{'f' * 40}\n"),
    (read_extents, "query-memory-devices", {}),
    (read_extents, "query-memory-devices", [1]),
    (read_extents, "query-memory-devices", [{"data": []}]),
    (read_extents, "query-memory-devices", [{"data": {"addr": -1, "size": 1}}]),
    (read_extents, "query-memory-devices", [{"data": {"addr": 0, "size": 10**40}}]),
    (run_state, "query-status", []),
    (run_state, "query-status", {}),
    (run_state, "query-status", {"status": 1}),
    (run_state, "query-status", {"status": None}),
    (migration, "query-migrate", {"status": []}),
    (run, "query-status", 7),
    (vcpus.Vcpus.of, "query-cpus-fast", {}),
    (vcpus.Vcpus.of, "query-cpus-fast", []),
    (vcpus.Vcpus.of, "query-cpus-fast", [{}]),
    (vcpus.Vcpus.of, "query-cpus-fast", [{"cpu-index": "0"}]),
    (vcpus.Vcpus.of, "query-cpus-fast", [{"cpu-index": True}]),
    (vcpus.Vcpus.of, "query-cpus-fast", [{"cpu-index": 10**40}]),
    (vcpus.Vcpus.of, "query-cpus-fast", [{"cpu-index": 0}] * 70_000),
    (vcpus.Vcpus.of, "query-cpus-fast", [{"cpu-index": 0, "target": 5}]),
    (saved, "query-fdsets", {}),
    (saved, "query-fdsets", [5]),
    (registers, "info registers", []),
    (registers, "info registers", "EIP=00000000\nCS =0000 " + "f" * 40 + " 0 0\n"),
]


@pytest.mark.parametrize(("action", "command", "answer"), WRONG)
def test_an_answer_of_the_wrong_shape_is_an_io_error(
    action: Callable[[QmpClient], object], command: str, answer: Any
) -> None:
    with monitor(command, answer) as client, pytest.raises(IoError):
        action(client)


def test_blocks_of_one_name_are_asked_for_one_by_one() -> None:
    """Even those of one device: only a backend has no more than one."""
    device = " owner:{dev path=/machine/peripheral-anon/device[7]}\n"
    view = HEAD + "".join(ROW.format(start, start + 0xFFF, "shm", 0).rstrip() + device for start in (0, 0x1000))
    with monitor("info mtree -f", view) as client:
        layout = Layout()
        with pytest.raises(IoError, match="keeps changing"):  # the block at 0 is ``ram``, says gpa2hva
            layout.take(client, layout.ask(client))


TOO_LARGE = ["RAX=" + "f" * 17, "CS =0000 0 " + "f" * 9, "GDT= " + "f" * 17 + " 0", "CR3=" + "1" * 40]


@pytest.mark.parametrize("line", TOO_LARGE)
def test_a_value_that_no_register_can_hold_is_an_io_error(line: str) -> None:
    with pytest.raises(IoError):
        parse_x86(f"RIP=0000000000000000\n{line}\n")


@pytest.mark.alone
def test_a_text_made_to_be_searched_for_ever_is_read_in_no_time() -> None:
    started = time.monotonic()
    with (
        monitor("gpa2hva 0x0", "Host virtual address for 0x0 (" * 8000) as client,
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
