# SPDX-License-Identifier: Apache-2.0
"""The QEMU driver against a process that looks like QEMU: found, read, written, paused, and in all its troubles."""

from __future__ import annotations

import gc
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from libmicrovmi_py.drivers.control import STOPPED, Phase
from libmicrovmi_py.drivers.qemu import QemuDriver
from libmicrovmi_py.errors import (
    DriverUnavailableError,
    InvalidArgumentError,
    InvalidContextError,
    IoError,
    MicrovmiError,
    TimeoutExpiredError,
    VmGoneError,
)
from libmicrovmi_py.memory.direct import DirectMemory
from libmicrovmi_py.model import MemoryKind, MemoryRange
from libmicrovmi_py.params import Parameters
from libmicrovmi_py.transport.mapping import HostMapping
from libmicrovmi_py.transport.procmem import Anonymous, Arriving
from libmicrovmi_py.transport.qmp import QmpCommandError

KIB = 1024
RAM, ROM, DEVICE = MemoryKind.RAM, MemoryKind.ROM, MemoryKind.DEVICE
PROGRAM = Path(__file__).with_name("qemu_program.py")

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An executable whose name is QEMU's: the Python interpreter."""
    path = tmp_path_factory.mktemp("bin") / "qemu-system-x86_64"
    shutil.copy(os.path.realpath(sys.executable), path)
    return path


@pytest.fixture
def start(binary: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts machines; they end with the test."""
    running: list[subprocess.Popen[str]] = []
    numbers = itertools.count()
    environment = {
        **os.environ,
        "PYTHONHOME": f"{sys.base_prefix}:{sys.base_exec_prefix}",
        "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR")),
    }

    def run(
        name: str, *options: str, path: str = "", mode: str = "server=on,wait=off", program: str = str(binary)
    ) -> subprocess.Popen[str]:
        path = path or str(tmp_path / f"{next(numbers)}.sock")
        arguments = [program, str(PROGRAM), "-name", name, "-qmp", f"unix:{path},{mode}", *options]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path)
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield run
    for process in running:
        process.kill()
        process.communicate()


def unique(base: str) -> str:
    """A name that no other machine of this host has."""
    return f"{base}-{os.getpid()}"


NAME = unique("machine")


def opened(vm_name: str = NAME, **parameters: str) -> QemuDriver:
    driver = QemuDriver.open(Parameters({"vm_name": vm_name, "timeout": "5", **parameters}))
    assert isinstance(driver, QemuDriver)
    return driver


def read(driver: QemuDriver, address: int, size: int) -> bytes:
    content = bytearray(size)
    assert DirectMemory(driver).read_into(address, memoryview(content)) == size
    return bytes(content)


def page_byte(offset: int) -> bytes:
    return bytes([offset // 4096 % 251])


# ------------------------------------------------------------------------------------------------------------ finding


def test_a_machine_is_found_by_name_by_process_and_by_socket(start: Start, tmp_path: Path) -> None:
    process = start(f"guest={NAME},debug-threads=on")
    for text in (NAME, str(process.pid), str(tmp_path / "0.sock")):
        driver = opened(text)
        assert driver.max_addr == 0x100000 + 512 * KIB
        driver.close()


def test_no_machine_of_that_name_lists_what_runs(start: Start) -> None:
    process = start(NAME)
    with pytest.raises(InvalidArgumentError, match=rf"'no-such'; running: .*{NAME} \(pid {process.pid}\)"):
        opened("no-such")


def test_two_machines_of_a_name_are_listed(start: Start) -> None:
    first, second = sorted(start(NAME).pid for _ in range(2))  # numbers of processes begin anew some day
    with pytest.raises(InvalidArgumentError, match=rf"pid {first}\).*pid {second}\)"):
        opened()
    opened(str(second)).close()


def test_a_machine_that_is_forking_is_one_machine(start: Start) -> None:
    process = start(NAME, "-fake", "fork")
    opened().close()
    assert process.poll() is None


def test_a_process_that_is_no_qemu_is_not_taken() -> None:
    with pytest.raises(InvalidArgumentError, match="no QEMU machine"):
        opened(str(os.getpid()))


@pytest.mark.parametrize("program", ["qemu-img", "qemu-nbd", "qemu-io", "qemu-x86_64", "my-qemu-kvm", "qemu-system"])
def test_another_program_of_qemus_is_no_machine(binary: Path, start: Start, program: str, tmp_path: Path) -> None:
    other = tmp_path / program
    shutil.copy(binary, other)
    process = start(NAME, program=str(other), path=str(tmp_path / "q"), mode="server=off")
    with pytest.raises(InvalidArgumentError, match=f"no QEMU machine has the name, .* '{NAME}'"):
        opened()
    with pytest.raises(InvalidArgumentError, match=rf"process {process.pid} \({program}\) is no QEMU"):
        opened(str(process.pid))


def test_a_machine_named_with_digits_is_found_by_its_name(start: Start) -> None:
    """The digits are the number of a process that is no QEMU, of one that is, and of none."""
    process = start("424242424")
    for name in (str(os.getpid()), str(process.pid)):
        start(name)
        opened(name).close()
    opened("424242424").close()


@pytest.mark.parametrize("text", ["²", "٣٤", "9" * 30, "0"])
def test_digits_of_other_scripts_are_a_name_and_no_process(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="no QEMU machine has the name"):
        opened(text)


@pytest.mark.parametrize("port", ["0", "70000", "²", "9" * 30])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(InvalidArgumentError, match="neither the path of a socket nor HOST:PORT"):
        opened(qmp=f"localhost:{port}")


def test_a_list_of_machines_ends_after_eight_with_those_that_are_likely_first(start: Start) -> None:
    others = [start(f"other-{number}") for number in range(9)]
    near = start(f"{NAME}-test")
    with pytest.raises(InvalidArgumentError) as caught:
        opened(NAME)
    listing = str(caught.value).partition("running: ")[2].split(", ")
    assert listing[0] == f"{NAME}-test (pid {near.pid}) of uid {os.geteuid()}"
    assert len(listing) == 9
    assert re.fullmatch(r"and ([0-9]+) more", listing[8])
    assert len(others) == 9


def test_no_name_is_an_error() -> None:
    with pytest.raises(InvalidArgumentError, match="QEMU driver requires a VM name parameter"):
        QemuDriver.open(Parameters({}))


def test_the_socket_can_be_given_apart(start: Start, tmp_path: Path) -> None:
    start(NAME)
    opened(qmp=str(tmp_path / "0.sock")).close()
    start(unique("other"))
    with pytest.raises(DriverUnavailableError, match="another QEMU"):
        opened(qmp=str(tmp_path / "1.sock"))
    with pytest.raises(InvalidArgumentError, match="HOST:PORT"):
        opened(qmp="nowhere")


def test_a_relative_socket_is_where_the_process_works(start: Start) -> None:
    start(NAME, path="relative.sock")
    opened().close()


def test_a_socket_of_another_program_is_not_taken(tmp_path: Path) -> None:
    path = str(tmp_path / "own.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(1)
        with pytest.raises(DriverUnavailableError, match="no QEMU of this machine listens there"):
            opened(path)


def test_a_machine_without_a_monitor_is_told_how_to_get_one(start: Start) -> None:
    process = start(NAME, mode="server=off")
    with pytest.raises(DriverUnavailableError, match="start QEMU with -qmp unix:"):
        opened(str(process.pid))


# ------------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ((), HostMapping),
        (("-fake", "private"), Anonymous),
        (("-fake", "private", "-fake", "arriving"), Arriving),  # what is not there yet is not zero
        (("-fake", "arriving"), Arriving),  # and is not touched: it could not arrive any more
    ],
)
def test_memory_is_mapped_where_shared_and_read_from_the_process_else(
    start: Start, options: tuple[str, ...], kind: type
) -> None:
    start(NAME, *options)
    driver = opened()
    kinds = [(region.start, region.size, region.kind) for region in driver.regions()]
    assert kinds == [
        (0, 448 * KIB, RAM),
        (448 * KIB, 64 * KIB, ROM),
        (0x100000, 512 * KIB, RAM),
        (0xFD000000, 64 * KIB, DEVICE),
        (0x8000000000, 64 * KIB, DEVICE),
    ]
    assert type(driver.regions()[0].source) is kind
    assert read(driver, 0x5FFF, 2) == page_byte(0x5000) + page_byte(0x6000)
    assert read(driver, 0x100000, 1) == page_byte(512 * KIB)
    assert read(driver, 0xFD001000, 1) == page_byte(0x1000)
    driver.close()


@pytest.mark.parametrize("options", [(), ("-fake", "private")])
def test_memory_that_is_together_in_the_guest_only_is_read_where_it_is(start: Start, options: tuple[str, ...]) -> None:
    start(NAME, "-fake", "swapped", *options)
    driver = opened()
    assert [region.start for region in driver.regions()[2:4]] == [0x100000, 0x140000]
    assert read(driver, 0x13FFFF, 2) == page_byte(1024 * KIB - 1) + page_byte(512 * KIB)
    driver.close()


@pytest.mark.parametrize("options", [(), ("-fake", "private")])
def test_a_write_is_seen_by_another_context(start: Start, options: tuple[str, ...]) -> None:
    start(NAME, *options)
    writer, reader = opened(), opened()
    DirectMemory(writer).write_from(0x1FFE, memoryview(b"four"))
    assert read(reader, 0x1FFE, 4) == b"four"
    writer.close()
    reader.close()


@pytest.fixture
def dimm(tmp_path: Path) -> Path:
    """A DIMM is plugged in as long as this file is there."""
    (tmp_path / "dimm").touch()
    return tmp_path / "dimm"


def test_the_map_is_read_again_and_replaced_as_a_whole(start: Start, dimm: Path) -> None:
    start(NAME, "-dimm", str(dimm))
    driver = opened()
    before = driver.regions()
    assert driver.memory_map()[0] == MemoryRange(0, 448 * KIB, RAM)
    assert driver.regions() is before
    dimm.unlink()
    assert MemoryRange(0x180000, 64 * KIB, RAM) not in driver.memory_map()
    assert driver.regions() == (*before[:3], *before[4:])
    driver.close()


def test_the_map_is_read_again_by_a_stop(start: Start, dimm: Path) -> None:
    start(NAME, "-dimm", str(dimm))
    driver = opened()
    assert driver.max_addr == 0x190000
    dimm.unlink()
    driver.stop()
    assert driver.max_addr == 0x180000
    driver.close()


def test_a_qemu_that_does_not_tell_whose_memory_is_has_the_same_map(start: Start) -> None:
    names = unique("old"), unique("new")
    start(names[0], "-fake", "old")
    start(names[1])
    old, new = (opened(name) for name in names)
    for _ in range(2):
        assert old.memory_map() == new.memory_map()
        assert read(old, 0x13FFFF, 2) == read(new, 0x13FFFF, 2)
        old.stop()
    old.close()
    new.close()


def test_a_map_that_changes_while_it_is_read_is_read_again(start: Start) -> None:
    start(NAME, "-fake", "move=gpa2hva")
    driver = opened()
    assert type(driver.regions()[0].source) is HostMapping
    driver.close()


def test_a_map_that_never_holds_still_is_an_error(start: Start) -> None:
    start(NAME, "-fake", "vanish=gpa2hva")
    with pytest.raises(IoError, match="keeps changing"):
        opened()


def test_a_closed_driver_is_an_error(start: Start) -> None:
    start(NAME)
    driver = opened()
    driver.close()
    with pytest.raises(InvalidContextError):
        read(driver, 0, 1)
    with pytest.raises(InvalidContextError):
        driver.stop()


def test_nothing_stays_open_after_close(start: Start) -> None:
    start(NAME)
    gc.collect()  # what an earlier test left in a cycle
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        driver = opened()
        DirectMemory(driver).write_from(0, memoryview(b"x"))
        driver.close()
    del driver
    assert len(os.listdir("/proc/self/fd")) == before


# ------------------------------------------------------------------------------------------- run state and registers


def test_a_machine_that_starts_stopped_was_not_running(start: Start) -> None:
    start(NAME, "-S")
    driver = opened()
    assert driver.run_state().phase is Phase.HALTED
    driver.close()


def test_a_pause_holds_though_the_map_cannot_be_read_after_it(start: Start) -> None:
    start(NAME, "-fake", "refuse-when-paused=human-monitor-command")
    driver = opened()
    before = driver.regions()
    driver.stop()
    assert driver.run_state() == STOPPED
    assert driver.regions() is before
    with pytest.raises(IoError, match="not now"):
        driver.memory_map()
    driver.close()


def test_vcpus_are_counted_from_0_whatever_qemu_calls_them(start: Start) -> None:
    start(NAME)
    driver = opened()
    assert driver.vcpu_count() == 2
    assert [state["rax"] for state in driver.read_states(range(2))] == [0xAB00, 0xAB04]
    for vcpu in (-1, 2):
        with pytest.raises(InvalidArgumentError, match="has 2"):
            driver.read_states((vcpu,))
    driver.close()


def test_what_qemu_refuses_is_told(start: Start) -> None:
    start(NAME, "-S", "-fake", "refuse=cont")
    driver = opened()
    with pytest.raises(QmpCommandError, match="QEMU refused cont: not now"):
        driver.run(whoever=True)
    driver.close()


# ------------------------------------------------------------------------------------------------------------ trouble


def test_a_machine_that_ended_is_gone(start: Start) -> None:
    process = start(NAME, "-fake", "private")
    driver = opened()
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    calls: list[Callable[[], object]] = [
        driver.stop,
        driver.run_state,
        driver.memory_map,
        driver.vcpu_count,
        lambda: driver.read_states(None),
        lambda: read(driver, 0, 1),
    ]
    for call in calls:
        with pytest.raises(VmGoneError):
            call()
    driver.close()


@pytest.mark.parametrize("how", ["exit", "leave"])
def test_a_machine_that_ends_during_a_command_is_gone(start: Start, how: str) -> None:
    start(NAME, "-fake", f"{how}=stop")
    driver = opened()
    with pytest.raises(VmGoneError, match=NAME):
        driver.stop()
    driver.close()


def test_a_monitor_that_hangs_up_is_unavailable(start: Start) -> None:
    start(NAME, "-fake", "hangup=stop")
    driver = opened(timeout="0.5")
    with pytest.raises(DriverUnavailableError, match="closed the connection"):
        driver.stop()
    driver.close()


def test_a_command_that_hangs_is_a_timeout(start: Start) -> None:
    start(NAME, "-fake", "hang=stop")
    driver = opened(timeout="0.5")
    started = time.monotonic()
    with pytest.raises(TimeoutExpiredError, match="no answer"):
        driver.stop()
    assert time.monotonic() - started < 3
    driver.close()


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    assert client.recv(1) == b"{"
    return client


def test_a_monitor_that_another_client_holds_is_told_as_such(start: Start, tmp_path: Path) -> None:
    start(NAME)
    driver = opened(timeout="0.2")
    for _ in range(2):
        with connect(tmp_path / "0.sock"):
            for _ in range(4):
                with pytest.raises(DriverUnavailableError, match="another client holds the monitor"):
                    driver.stop()
        time.sleep(0.05)
    driver.close()


def test_the_next_monitor_is_used_when_one_is_held(start: Start, tmp_path: Path) -> None:
    start(NAME, "-qmp", f"unix:{tmp_path}/second.sock,server=on,wait=off")
    with connect(tmp_path / "0.sock"):
        started = time.monotonic()
        opened().close()
        assert time.monotonic() - started < 2


def test_a_silent_monitor_does_not_take_the_time_of_the_next(start: Start, tmp_path: Path) -> None:
    """Nobody is seen to hold the first one: it listens and takes no client."""
    start(NAME, "-fake", "deaf", "-qmp", f"unix:{tmp_path}/second.sock,server=on,wait=off")
    started = time.monotonic()
    opened(timeout="4").close()
    assert 0.5 < time.monotonic() - started < 3.5


def test_a_monitor_that_speaks_something_else_is_told_as_such(start: Start, tmp_path: Path) -> None:
    start(NAME)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "other"))
        server.listen(1)

        def answer_one() -> None:
            with server.accept()[0] as client:
                client.sendall(b"\xff\xfb\x01SSH-2.0")

        answer = threading.Thread(target=answer_one)
        answer.start()
        with pytest.raises(DriverUnavailableError, match=r"not a QMP server: it sent b'SSH-2.0'"):
            opened(qmp=str(tmp_path / "other"))
        answer.join()


def test_libvirts_monitor_is_told_as_such(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "0.sock"
    chardev = f"socket,id=charmonitor,path={path},server=on"
    start(NAME, "-chardev", chardev, "-mon", "chardev=charmonitor,mode=control")
    with connect(path), pytest.raises(DriverUnavailableError, match="libvirt holds the monitor"):
        opened(timeout="0.3")


def test_a_stopped_process_is_told_as_such(start: Start) -> None:
    process = start(NAME)
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    with pytest.raises(DriverUnavailableError, match=f"kill -CONT {process.pid}"):
        opened(timeout="0.3")


def test_contexts_and_threads_share_one_monitor(start: Start) -> None:
    start(NAME)
    drivers = [opened(timeout="20") for _ in range(2)]
    errors: list[MicrovmiError] = []

    def work(driver: QemuDriver) -> None:
        try:
            for _ in range(5):
                assert driver.vcpu_count() == 2
                driver.memory_map()
        except MicrovmiError as err:
            errors.append(err)

    threads = [threading.Thread(target=work, args=(driver,)) for driver in drivers * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for driver in drivers:
        driver.close()
