# SPDX-License-Identifier: Apache-2.0
"""The machine that was asked for, and no other: whoever else listens, whatever others call themselves."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from needs import missing

from libmicrovmi_py import DriverUnavailableError, InvalidArgumentError, Microvmi, list_vms

from .firmware import Firmware, firmware, free_ports, listens, need_root, new_name, open_folder, ports_of, wait_for
from .test_finding import MIB, OPENING, as_another, size_of, unix

ABSENT = "no QEMU machine has the name"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that every user can enter and write."""
    with open_folder() as path:
        yield path


def tcp(port: int, more: str = "") -> tuple[str, str]:
    return "-qmp", f"tcp:127.0.0.1:{port}{more},server=on,wait=off"


# ------------------------------------------------------------------------------------------------------- QMP over TCP


def test_machines_that_share_a_range_of_ports_are_told_apart(folder: Path) -> None:
    port = free_ports(3)
    with (
        firmware(folder, *tcp(port, f",to={port + 2}")) as first,
        firmware(folder, *tcp(port, f",to={port + 2}"), mib=80) as second,
    ):
        wait_for(lambda: listens(port + 1), second.process)
        assert (size_of(first.name), size_of(second.name)) == (64, 80)
        with Microvmi(second.name, driver="qemu", timeout=5) as machine:
            machine.pause()
            assert (first.runs(), second.runs()) == (True, False)


def test_a_port_that_another_machine_has_is_refused(folder: Path) -> None:
    port = free_ports(1)
    with firmware(folder, *tcp(port)) as first, firmware(folder, "-S", *unix(folder / "q")) as second:
        wait_for(lambda: listens(port), first.process)
        with pytest.raises(DriverUnavailableError, match=f"another process listens there, not process {second.pid}"):
            size_of(second.name, qmp=f"127.0.0.1:{port}")
        assert size_of(first.name, qmp=f"localhost:{port}") == 64


@pytest.fixture
def elsewhere(folder: Path) -> Iterator[tuple[Firmware, Firmware, int]]:
    """Two machines whose monitors have one port: ours, and one in a network namespace of its own."""
    need_root("a network namespace")
    port = free_ports(1)
    inside = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if not shutil.which("ip"):
        missing("no ip: apt-get install iproute2")
    with (
        firmware(folder, *tcp(port)) as ours,
        firmware(folder, *tcp(port), mib=80, around=inside) as theirs,
    ):
        wait_for(lambda: listens(port), ours.process)
        yield ours, theirs, port


def test_the_same_port_in_another_network_namespace_is_another_machine(
    elsewhere: tuple[Firmware, Firmware, int], folder: Path
) -> None:
    ours, theirs, port = elsewhere
    with pytest.raises(DriverUnavailableError, match=f"in another network namespace: nsenter -n -t {theirs.pid}"):
        size_of(theirs.name)
    with pytest.raises(DriverUnavailableError, match="another process listens there"):
        size_of(theirs.name, qmp=f"127.0.0.1:{port}")
    assert size_of(ours.name) == 64
    assert ours.runs()
    code = f"m = Microvmi({theirs.name!r}, driver='qemu', timeout=5); print(m.max_addr // {MIB})"
    assert as_another(code, around=["nsenter", "-n", "-t", str(theirs.pid)], folder=folder) == "80\n"


def test_a_machine_is_reached_in_its_namespace_by_an_address_of_its_own(folder: Path) -> None:
    need_root("a network namespace")
    if not shutil.which("ip"):
        missing("no ip: apt-get install iproute2")
    port, link = free_ports(1), f"mv{os.getpid() % 100000}"
    with ExitStack() as stack:
        options = ("-qmp", f"tcp:0.0.0.0:{port},server=on,wait=off")
        guest = stack.enter_context(firmware(folder, *options, around=["unshare", "-n"]))
        stack.callback(subprocess.run, ["ip", "link", "del", link], stderr=subprocess.DEVNULL, check=False)
        for command in (
            f"ip link add {link} type veth peer name inner netns {guest.pid}",
            f"ip addr add 10.254.77.1/24 dev {link}",
            f"ip link set {link} up",
            f"nsenter -n -t {guest.pid} ip addr add 10.254.77.2/24 dev inner",
            f"nsenter -n -t {guest.pid} ip link set inner up",
        ):
            if subprocess.run(command.split(), stderr=subprocess.DEVNULL, check=False).returncode:
                missing(f"this kernel has no such network devices: {command}")
        assert size_of(guest.name, qmp=f"10.254.77.2:{port}") == 64


# --------------------------------------------------------------------------------------------------- every connection


def test_every_session_is_with_the_machine_that_was_opened(folder: Path) -> None:
    with (
        firmware(folder, *unix(folder / "a")) as first,
        firmware(folder, *unix(folder / "b")) as second,
        Microvmi(first.name, driver="qemu", timeout=5) as machine,
    ):
        (folder / "b").rename(folder / "a")
        with pytest.raises(DriverUnavailableError, match=f"another QEMU listens there: {second.name}"):
            machine.pause()
        assert first.runs()
        assert second.runs()


def test_a_socket_that_was_handed_over_is_proven_by_who_has_it(folder: Path) -> None:
    sockets = [socket.socket(socket.AF_UNIX) for _ in range(2)]
    with ExitStack() as stack:
        guests = []
        for number, server in enumerate(sockets):
            stack.enter_context(server)
            server.bind(str(folder / f"handed{number}"))
            server.listen(1)
            chardev = ("-chardev", f"socket,id=c,fd={server.fileno()},server=on,wait=off", "-mon", "c,mode=control")
            guests.append(stack.enter_context(firmware(folder, *chardev, pass_fds=[server.fileno()])))
        machine = stack.enter_context(Microvmi(guests[0].name, driver="qemu", timeout=5))
        (folder / "handed1").rename(folder / "handed0")
        with pytest.raises(DriverUnavailableError, match=f"another QEMU listens there: {guests[1].name}"):
            machine.pause()
        assert guests[1].runs()


def test_a_socket_in_a_container_is_reached_through_its_root(folder: Path) -> None:
    need_root("a mount namespace")
    inner = folder / "inner"
    inner.mkdir()
    around = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs none {inner} && exec "$@"', "sh"]
    with firmware(folder, *unix(inner / "q"), around=around) as guest:
        assert not (inner / "q").exists()
        assert size_of(guest.name) == 64
        with firmware(folder, *unix(inner / "q"), mib=80) as other:  # the same path, seen from here
            assert (size_of(guest.name), size_of(other.name)) == (64, 80)


# -------------------------------------------------------------------------------------------------------- strangers


def as_user(uid: int) -> list[str]:
    need_root("a machine of another user")
    if not shutil.which("setpriv"):
        missing("no setpriv: apt-get install util-linux")
    return ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups"]


def test_a_strangers_machine_does_not_come_before_our_own(folder: Path) -> None:
    name = new_name()
    with firmware(folder, "-S", *unix(folder / "s"), name=name, mib=80, around=as_user(23456)) as stranger:
        wait_for(lambda: (folder / "s").exists(), stranger.process)
        assert size_of(name) == 80
        with firmware(folder, "-S", *unix(folder / "q"), name=name):
            assert size_of(name) == 64
        with firmware(folder, "-S", *unix(folder / "t"), name=name, mib=96, around=as_user(64055)) as service:
            wait_for(lambda: (folder / "t").exists(), service.process)
            assert size_of(name) == 96


UUID = "0f9c4b3e-1111-4222-8333-44445555{:04x}"


def test_a_stranger_who_calls_his_machine_by_the_uuid_of_ours_is_not_found_in_its_place(folder: Path) -> None:
    uuid = UUID.format(os.getpid() & 0xFFFF)
    with firmware(folder, "-S", *unix(folder / "s"), name=uuid, mib=80, around=as_user(23456)) as stranger:
        wait_for(lambda: (folder / "s").exists(), stranger.process)
        assert size_of(uuid) == 80
        with firmware(folder, "-S", *unix(folder / "q"), "-uuid", uuid):
            assert size_of(uuid) == 64
            (listed,) = [machine for machine in list_vms("qemu") if machine.process_id == stranger.pid]
            assert f"vm_name={stranger.pid}&started=" in listed.uri
            with firmware(folder, "-S", *unix(folder / "t"), name=uuid, mib=96):
                assert size_of(uuid) == 96


def test_a_stranger_who_calls_his_machine_by_the_process_id_of_ours_is_not_found_in_its_place(folder: Path) -> None:
    with firmware(folder, "-S", *unix(folder / "q")) as ours:
        pid = str(ours.pid)
        with firmware(folder, "-S", *unix(folder / "s"), name=pid, mib=80, around=as_user(23456)) as stranger:
            wait_for(lambda: (folder / "s").exists(), stranger.process)
            assert size_of(pid) == 64
            (listed,) = [machine for machine in list_vms("qemu") if machine.process_id == stranger.pid]
            assert f"vm_name={stranger.pid}&started=" in listed.uri
            with firmware(folder, "-S", *unix(folder / "t"), name=pid, mib=96):
                assert size_of(pid) == 96, "a name of ours comes first"


def test_a_uuid_that_two_machines_have_is_told(folder: Path) -> None:
    uuid = UUID.format(os.getpid() & 0xFFFF)
    with (
        firmware(folder, "-S", *unix(folder / "a"), "-uuid", uuid) as first,
        firmware(folder, "-S", *unix(folder / "b"), "-uuid", uuid.upper()) as second,
        pytest.raises(InvalidArgumentError, match=f"2 QEMU machines are named '{uuid}'") as caught,
    ):
        size_of(uuid)
    assert all(f"(pid {guest.pid})" in str(caught.value) for guest in (first, second))


def test_machines_that_strangers_run_under_one_name_are_listed_with_their_users(folder: Path) -> None:
    name = new_name()
    with (
        firmware(folder, "-S", *unix(folder / "a"), name=name, around=as_user(23456)) as first,
        firmware(folder, "-S", *unix(folder / "b"), name=name, around=as_user(23457)) as second,
        pytest.raises(InvalidArgumentError, match=f"2 QEMU machines are named '{name}'") as caught,
    ):
        size_of(name)
    for guest, uid in ((first, 23456), (second, 23457)):
        assert f"{name} (pid {guest.pid}) of uid {uid}" in str(caught.value)


def test_a_machine_of_another_user_whose_files_cannot_be_seen(folder: Path) -> None:
    port = free_ports(1)
    stranger = as_user(23456)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "handed"))
        server.listen(1)
        chardev = ("-chardev", f"socket,id=c,fd={server.fileno()},server=on,wait=off", "-mon", "c,mode=control")
        with (
            firmware(folder, "-S", *tcp(port)) as over_tcp,
            firmware(folder, "-S", *chardev, pass_fds=[server.fileno()]) as handed,
        ):
            wait_for(lambda: ports_of(over_tcp.pid), over_tcp.process)
            for guest in (over_tcp, handed):
                told = as_another(OPENING.format(guest.name), around=stranger, folder=folder)
                assert "only its user or CAP_SYS_PTRACE can" in told, told


NEWLINES = """
import socket, sys, time
sockets = []
for name in sys.argv[1:]:
    sockets.append(socket.socket(socket.AF_UNIX))
    sockets[-1].bind(bytes.fromhex(name))
    sockets[-1].listen(1)
print(flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def names_in_the_table(*names: bytes) -> Iterator[None]:
    """A process of somebody's that listens under such names."""
    command = [sys.executable, "-c", NEWLINES, *(name.hex() for name in names)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def test_names_of_others_sockets_do_not_break_a_session(folder: Path) -> None:
    with firmware(folder, *unix(folder / "q")) as guest, socket.create_server(("127.0.0.1", 0)) as server:
        device = f"socket,id=c,fd={server.fileno()},server=on,wait=off"
        with firmware(folder, "-chardev", device, "-mon", "c,mode=control", pass_fds=[server.fileno()]) as handed:
            inode = os.fstat(server.fileno()).st_ino
            row = f"0000000000000000: 00000003 00000000 00010000 0001 03 {inode} {folder}/q".encode()
            forged = [b"\0a\nb", b"\0\n: : : : : : :", b"\0a\n" + row, b"\0a\n1: 2 3 zz 5 6 7 8", b"\0 \xff"]
            with names_in_the_table(*(name[:107] for name in forged)):
                for machine in (guest, handed):
                    assert size_of(machine.name) == 64
                assert size_of(folder / "q") == 64
