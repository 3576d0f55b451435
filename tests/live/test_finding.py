# SPDX-License-Identifier: Apache-2.0
"""Machines as people start them, with every kind of monitor: found, or told what is wrong."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from needs import missing

from libmicrovmi_py import DriverUnavailableError, InvalidArgumentError, IoError, Microvmi

from .firmware import (
    firmware,
    free_ports,
    listens,
    need_qemu,
    need_root,
    new_name,
    open_folder,
    ports_of,
    qemu_version,
    wait_for,
)
from .monitor import Monitor, MonitorError

MIB = 1 << 20
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that every user can enter and write."""
    with open_folder() as path:
        yield path


def size_of(name: object, **parameters: object) -> int:
    """Open a machine of QEMU's and tell its MiB."""
    with Microvmi(str(name), driver="qemu", **{"timeout": 5, **parameters}) as machine:
        return machine.max_addr // MIB


def unix(path: object) -> tuple[str, str]:
    return "-qmp", f"unix:{path},server=on,wait=off"


# ------------------------------------------------------------------------------------------------- who starts machines


CONFIG = """
# a comment
[name]
  guest = "{name}"
[chardev "monitor"]
  backend = "socket"
  path = "{path}"
  server = "on"
  wait = "off"
[mon]
  chardev = "monitor"
  mode = "control"
"""


@pytest.mark.parametrize("relative", [False, True])
def test_a_file_of_options_names_the_machine_and_its_monitor(folder: Path, relative: bool) -> None:
    name, config = new_name(), folder / "options"
    config.write_text(CONFIG.format(name=name, path="q" if relative else folder / "q"))
    with firmware(folder, "-S", "-readconfig", "options" if relative else str(config), name="") as guest:
        assert size_of(name) == 64
        assert size_of(guest.pid) == 64


def test_a_file_of_options_that_is_gone_is_told(folder: Path) -> None:
    config = folder / "options"
    config.write_text(CONFIG.format(name="", path=folder / "q"))
    with firmware(folder, "-S", "-readconfig", str(config)) as guest:
        config.unlink()
        with pytest.raises(DriverUnavailableError, match=r"-readconfig .*options .*was not read.*qmp=PATH"):
            size_of(guest.name)
        assert size_of(guest.name, qmp=folder / "q") == 64


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """What a QEMU that was copied elsewhere needs to find its modules."""
    return {**os.environ, "QEMU_MODULE_DIR": "/usr/lib/x86_64-linux-gnu/qemu"}


@pytest.mark.parametrize("program", ["qemu-vanilla-system-x86_64", "vm-runner"])
def test_a_qemu_whose_program_has_another_name(folder: Path, environment: dict[str, str], program: str) -> None:
    shutil.copy(os.path.realpath(need_qemu()), folder / program)
    data = ("-L", "/usr/share/qemu", "-L", "/usr/share/seabios")
    with firmware(folder, "-S", *data, *unix("q"), program=str(folder / program), env=environment) as guest:
        for text in (guest.name, guest.pid, folder / "q"):
            assert size_of(text) == 64


def test_what_started_a_qemu_is_not_taken_for_it(folder: Path) -> None:
    name = new_name()
    shell = ["sh", "-c", '"$@" & wait', "sh"]
    with firmware(folder, "-S", *unix(folder / "q"), name=name, around=shell) as started:
        try:
            assert size_of(name) == 64
            with pytest.raises(DriverUnavailableError, match=f"another QEMU listens there: {name}"):
                size_of(started.pid)
        finally:
            started.quit()


def test_what_started_a_renamed_qemu_is_not_taken_for_it(folder: Path, environment: dict[str, str]) -> None:
    name, program = new_name(), folder / "vm-runner"
    shutil.copy(os.path.realpath(need_qemu()), program)
    shell = ["sh", "-c", '"$@" & wait', "sh"]
    data = ("-L", "/usr/share/qemu", "-L", "/usr/share/seabios")
    options = ("-S", *data, *unix(folder / "q"))
    with firmware(folder, *options, name=name, around=shell, program=str(program), env=environment) as started:
        try:
            assert size_of(name) == 64
        finally:
            started.quit()


def test_a_process_that_is_no_qemu_is_named(folder: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"process {os.getpid()} \(python.*\) is no QEMU that serves QMP"):
        size_of(os.getpid())


def test_a_daemon_that_left_for_another_directory(folder: Path) -> None:
    name = new_name()
    options = ["-name", name, "-accel", "tcg", "-display", "none", "-monitor", "none", "-m", "64M", "-S", "-daemonize"]
    subprocess.run(
        [need_qemu(), *options, "-pidfile", "pid", *unix("q")], cwd=folder, env={**os.environ, "PWD": "/"}, check=True
    )
    pid = int((folder / "pid").read_text())
    try:
        assert size_of(name) == 64
        (folder / "q").rename(folder / "moved")
        with pytest.raises(DriverUnavailableError, match=r"'q' was named from a directory that is not known.*qmp=PATH"):
            size_of(name)
    finally:
        os.kill(pid, 9)


@pytest.mark.parametrize("name", ["tab\there", "comma,,here", " blanks "])
def test_a_name_with_odd_characters(folder: Path, name: str) -> None:
    name = f"{name}{os.getpid()}"
    with firmware(folder, "-S", *unix(folder / "q"), name=name):
        assert size_of(name.replace(",,", ",")) == 64


def test_a_name_of_digits_is_a_name_before_it_is_a_process(folder: Path) -> None:
    name = str(os.getpid())
    with firmware(folder, "-S", *unix(folder / "q"), name=name):
        assert size_of(name) == 64


# ----------------------------------------------------------------------------------------------------- kinds of monitor


def test_telnet_is_spoken_over_unix_and_tcp(folder: Path) -> None:
    port = free_ports(1)
    device = f"socket,id=c,path={folder}/t,server=on,wait=off,telnet=on"
    for options in (
        ("-chardev", device, "-mon", "chardev=c,mode=control"),
        ("-qmp", f"telnet:127.0.0.1:{port},server=on,wait=off"),
    ):
        with firmware(folder, "-S", *options) as guest, Microvmi(guest.name, driver="qemu", timeout=5) as machine:
            assert machine.vcpu_count() == 1


def test_a_machine_with_the_human_monitor_alone_is_told_as_such(folder: Path) -> None:
    with firmware(folder, "-S") as guest:
        with pytest.raises(DriverUnavailableError, match=r"serves only the human monitor .*start QEMU with -qmp"):
            size_of(guest.name)
        with pytest.raises(DriverUnavailableError, match="serves only the human monitor"):
            size_of(guest.name, qmp=guest.human_monitor)
        with pytest.raises(DriverUnavailableError, match="serves only the human monitor"):
            size_of(guest.human_monitor, timeout=2)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("-qmp", "stdio"), "its QMP monitor is on stdio"),
        (("-qmp", "unix:{}/none,{reconnect}"), "its QMP monitor connects out to .*/none"),
        (("-qmp", "websocket:127.0.0.1:0,server=on,wait=off"), "wrapped in a websocket"),
    ],
    ids=["stdio", "reconnect", "websocket"],
)
def test_a_monitor_that_cannot_be_called_is_told_as_such(folder: Path, options: tuple[str, ...], told: str) -> None:
    reconnect = "reconnect-ms=5000" if qemu_version() >= (9, 2) else "reconnect=5"
    words = [word.format(folder, reconnect=reconnect) for word in options]
    with firmware(folder, "-S", *words, human=False) as guest:
        time.sleep(0.3)
        with pytest.raises(DriverUnavailableError, match=f"{told}.*: start QEMU with -qmp unix:"):
            size_of(guest.name)


def test_any_port_is_found_unless_there_is_a_debuggers_too(folder: Path) -> None:
    any_port = ("-qmp", "tcp:127.0.0.1:0,server=on,wait=off")
    with firmware(folder, "-S", *any_port) as guest:
        assert size_of(guest.name) == 64
    with firmware(folder, *any_port, "-gdb", "tcp:127.0.0.1:0") as guest:
        wait_for(lambda: len(ports_of(guest.pid)) == 2, guest.process)
        with pytest.raises(DriverUnavailableError, match=r"one of the ports \d+, \d+: name it with qmp=HOST:PORT"):
            size_of(guest.name)
        assert guest.runs()


def test_a_debuggers_port_within_the_range_is_left_alone(folder: Path) -> None:
    port = free_ports(2)
    stub = ("-gdb", f"tcp:127.0.0.1:{port + 1}")
    with firmware(folder, *stub, "-qmp", f"tcp:127.0.0.1:{port},to={port + 1},server=on,wait=off") as guest:
        wait_for(lambda: listens(port) and listens(port + 1), guest.process)
        assert size_of(guest.name) == 64
        with socket.create_connection(("127.0.0.1", port)) as held:
            assert held.recv(1) == b"{"
            with pytest.raises(DriverUnavailableError, match="another client may hold this monitor"):
                size_of(guest.name, timeout=1)
        assert guest.runs()


def test_sockets_that_were_handed_over(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as local, socket.create_server(("127.0.0.1", 0)) as tcp:
        local.bind(str(folder / "handed"))
        local.listen(1)
        for server in (local, tcp):
            device = f"socket,id=c,fd={server.fileno()},server=on,wait=off"
            chardev = ("-chardev", device, "-mon", "chardev=c,mode=control")
            with firmware(folder, "-S", *chardev, pass_fds=[server.fileno()]) as guest:
                assert size_of(guest.name) == 64
                if server is local:
                    assert size_of(folder / "handed") == 64


def test_an_abstract_socket(folder: Path) -> None:
    device = f"socket,id=c,path={new_name()},abstract=on,server=on,wait=off"
    with firmware(folder, "-S", "-chardev", device, "-mon", "chardev=c,mode=control") as guest:
        assert size_of(guest.name) == 64


# ---------------------------------------------------------------------------------------------------- texts of trouble


def test_a_machine_without_memory_is_told_as_such(folder: Path) -> None:
    with (
        firmware(folder, "-M", "none", *unix(folder / "q"), mib=0) as guest,
        pytest.raises(IoError, match="no memory: it was started with -M none"),
    ):
        size_of(guest.name)


def test_a_write_during_a_background_snapshot_tells_what_may_be_in_the_way(folder: Path) -> None:
    with firmware(folder, *unix(folder / "q"), mib=256) as guest:
        monitor = Monitor(folder / "q")
        try:
            wanted = [{"capability": "background-snapshot", "state": True}]
            monitor.execute("migrate-set-capabilities", capabilities=wanted)
        except MonitorError as err:
            missing(f"no background snapshot: {err}; the kernel needs userfaultfd with write protection")
        monitor.execute("migrate", uri="exec:sleep 10; cat >/dev/null")  # a full pipe holds it up
        with Microvmi(guest.name, driver="qemu", timeout=5) as machine:
            errors: list[IoError] = []

            def is_refused() -> bool:
                try:
                    machine.write_physical(0x2000000, bytes(8))
                except IoError as err:
                    errors.append(err)
                return bool(errors)

            wait_for(is_refused, guest.process)
            assert "a background snapshot has yet to save it) at physical address 0x2000000" in str(errors[0])
            assert machine.read_physical(0x2000000, 8) == bytes(8)


def test_libvirts_monitor_is_told_at_once_and_once(folder: Path) -> None:
    need_root("a mount namespace")
    home = folder / "libvirt" / "qemu" / "domain-1-x"
    home.mkdir(parents=True)
    path = home / "monitor.sock"
    with firmware(folder, "-S", *unix(path), around=["unshare", "-m"]) as guest, socket.socket(socket.AF_UNIX) as held:
        wait_for(path.exists, guest.process)
        held.connect(str(path))
        assert held.recv(1) == b"{"
        started = time.monotonic()
        with pytest.raises(DriverUnavailableError, match="libvirt holds the monitor") as caught:
            size_of(guest.name, timeout=10)
        assert time.monotonic() - started < 3
        assert str(caught.value).count("libvirt holds") == 1


def test_libvirts_monitor_is_known_by_its_device_wherever_it_is(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as held:
        server.bind(str(folder / "anywhere"))
        server.listen(1)
        device = f"socket,id=charmonitor,fd={server.fileno()},server=on,wait=off"
        chardev = ("-chardev", device, "-mon", "chardev=charmonitor,mode=control")
        with firmware(folder, "-S", *chardev, *unix(folder / "q"), pass_fds=[server.fileno()]) as guest:
            held.connect(str(folder / "anywhere"))
            assert held.recv(1) == b"{"
            assert size_of(guest.name) == 64  # by its second monitor
            with pytest.raises(DriverUnavailableError, match=r"libvirt holds the monitor .*/anywhere"):
                size_of(guest.name, qmp=folder / "anywhere", timeout=10)


def as_another(code: str, *, around: list[str], folder: Path) -> str:
    """Run Python code on this tree in another process; what it prints."""
    source = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom libmicrovmi_py import Microvmi\n{code}"
    command = [*around, sys.executable, "-B", "-c", source]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return ended.stdout + ended.stderr


OPENING = "try: print(Microvmi({!r}, driver='qemu', timeout=5))\nexcept Exception as err: print(err)"


def test_a_reader_in_another_pid_namespace_is_told_so(folder: Path) -> None:
    need_root("a PID namespace")
    around = ["unshare", "-p", "-f", "--mount-proc"]
    with firmware(folder, "-S", *unix(folder / "q")) as guest:
        wait_for((folder / "q").exists, guest.process)
        assert "in another PID namespace" in as_another(OPENING.format(str(folder / "q")), around=around, folder=folder)
        told = as_another(OPENING.format(guest.name), around=around, folder=folder)
    assert "running: none (this process sees only the processes of its own PID namespace)" in told


def test_a_reader_without_proc_is_told_so(folder: Path) -> None:
    need_root("a mount namespace")
    around = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]
    with firmware(folder, "-S", *unix(folder / "q")) as guest:
        wait_for((folder / "q").exists, guest.process)
        told = as_another(OPENING.format(guest.name), around=around, folder=folder)
    assert "running: none (/proc is not that of this process: mount -t proc proc /proc)" in told


def test_a_qemu_that_changed_its_user_is_told_to_take_a_capability(folder: Path) -> None:
    need_root("another user")
    if not shutil.which("setpriv"):
        missing("no setpriv: apt-get install util-linux")
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    as_nobody = ("-run-with", "user=nobody") if qemu_version() >= (9, 1) else ("-runas", "nobody")
    with firmware(folder, "-S", *unix(folder / "q"), *as_nobody) as guest:
        wait_for((folder / "q").exists, guest.process)
        (folder / "q").chmod(0o777)
        told = as_another(OPENING.format(guest.name), around=nobody, folder=folder)
    assert "changed its user" in told
    assert "CAP_SYS_PTRACE is needed" in told
