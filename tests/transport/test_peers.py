# SPDX-License-Identifier: Apache-2.0
"""Who is at the other end of a connection: the process that has the socket, or an error that says what is missing."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from needs import missing

from libmicrovmi_py.transport.peers import PeerError, check_peer, credentials
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.sockets import peer_inode, tcp_sockets, unix_sockets_of

ROOT = Path(__file__).resolve().parents[2]

SERVER = """
import os, socket, sys
listening = socket.socket(fileno=int(sys.argv[1]))
print(flush=True)
client, _ = listening.accept()
client.sendall(b"{")
sys.stdin.readline()
"""


@contextmanager
def server(listening: socket.socket, user: int | None = None) -> Iterator[Process]:
    """A process that takes one client of a socket which we made, and sends it a byte."""
    fd = listening.fileno()
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(fd)],
        pass_fds=[fd],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        user=user,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = Process.find(process.pid)
        assert found is not None
        yield found
        process.kill()


@pytest.fixture(params=["unix", "abstract", "tcp", "tcp6", "mapped"])
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    """A socket that listens, of each kind."""
    if request.param in ("unix", "abstract"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(tmp_path / "s") if request.param == "unix" else f"\0peers-{os.getpid()}")
            sock.listen(1)
            yield sock
        return
    family = socket.AF_INET if request.param == "tcp" else socket.AF_INET6
    try:
        address = ("127.0.0.1" if request.param == "tcp" else "::", 0)
        with socket.create_server(address, family=family, dualstack_ipv6=request.param == "mapped") as sock:
            yield sock
    except OSError as err:
        missing(f"this host has no IPv6: {err}")


def connected(listening: socket.socket) -> socket.socket:
    """A client that the server has accepted and sent a byte."""
    if listening.family == socket.AF_UNIX:
        client = socket.socket(socket.AF_UNIX)
        client.connect(listening.getsockname())
    else:
        only_6 = listening.family == socket.AF_INET6 and listening.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        host = "::1" if only_6 else "127.0.0.1"
        client = socket.create_connection((host, listening.getsockname()[1]), timeout=10)
    client.settimeout(10)
    assert client.recv(1, socket.MSG_PEEK) == b"{"
    return client


def test_the_process_that_accepted_is_the_peer_and_who_made_the_socket_is_not(listening: socket.socket) -> None:
    ourselves = Process.find(os.getpid())
    assert ourselves is not None
    with server(listening) as process, connected(listening) as client:
        check_peer(client, process)
        with pytest.raises(PeerError, match=f"not process {ourselves.pid}"):
            check_peer(client, ourselves)


def test_a_connection_that_nobody_accepted_proves_nothing(listening: socket.socket) -> None:
    if listening.family == socket.AF_UNIX:
        return  # who began to listen is told without an accept, see the next test
    ourselves = Process.find(os.getpid())
    assert ourselves is not None
    host, port = listening.getsockname()[:2]
    with socket.create_connection((host.replace("::", "::1"), port)) as client, pytest.raises(PeerError):
        check_peer(client, ourselves)


def test_who_began_to_listen_is_told_by_process_and_user(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock, socket.socket(socket.AF_UNIX) as client:
        sock.bind(str(tmp_path / "s"))
        sock.listen(1)
        client.connect(str(tmp_path / "s"))
        assert credentials(client) == (os.getpid(), os.geteuid())
        assert peer_inode(client) == 0
        accepted, _ = sock.accept()
        with accepted:
            assert peer_inode(client) == os.fstat(accepted.fileno()).st_ino


UNPRIVILEGED = """
import sys; sys.path.insert(0, {root!r})
import os, socket
from libmicrovmi_py.transport.peers import check_peer
from libmicrovmi_py.transport.processes import Process
os.setgroups([]); os.setresgid(23456, 23456, 23456); os.setresuid(23456, 23456, 23456)
sock = socket.socket(fileno={fd})
try:
    print(check_peer(sock, Process.find({pid})))
except Exception as err:
    print(type(err).__name__, err)
"""


def unprivileged(client: socket.socket, pid: int) -> str:
    code = UNPRIVILEGED.format(root=str(ROOT), fd=client.fileno(), pid=pid)
    ended = subprocess.run(
        [sys.executable, "-B", "-c", code], pass_fds=[client.fileno()], capture_output=True, text=True, check=False
    )
    return ended.stdout + ended.stderr


def test_what_cannot_be_proven_without_rights_is_refused(listening: socket.socket) -> None:
    if os.geteuid() != 0:
        missing("a process of another user takes root: run the tests as root")
    with server(listening) as process, connected(listening) as client:
        told = unprivileged(client, process.pid)
    assert told.startswith("PeerError it cannot be told whether process"), told
    assert "CAP_SYS_PTRACE" in told


def test_a_unix_socket_on_which_the_process_began_to_listen_needs_no_rights(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        missing("a process of another user takes root: run the tests as root")
    with socket.socket(socket.AF_UNIX) as sock, socket.socket(socket.AF_UNIX) as client:
        sock.bind(str(tmp_path / "s"))
        sock.listen(1)
        client.connect(str(tmp_path / "s"))
        assert unprivileged(client, os.getpid()) == "None\n"
        assert unprivileged(client, 1).startswith("PeerError it cannot be told whether process 1 serves it")


def test_a_process_in_another_network_namespace_is_not_the_peer_of_a_local_connection() -> None:
    """Both have a socket of the same addresses and ports; only ours is connected with us."""
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"):
        missing("a network namespace takes root, unshare and ip (apt-get install util-linux iproute2)")
    with socket.create_server(("127.0.0.1", 0)) as here, server(here) as ours, connected(here) as client:
        ports = client.getpeername()[1], client.getsockname()[1]
        code = (
            "import socket, sys; p, q = map(int, sys.argv[1:]); s = socket.create_server(('127.0.0.1', p))\n"
            "c = socket.create_connection(('127.0.0.1', p), source_address=('127.0.0.1', q)); a = s.accept()\n"
            "print(flush=True); sys.stdin.readline()"
        )
        inside = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, "-c", code]
        with subprocess.Popen([*inside, *map(str, ports)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as twin:
            assert twin.stdout is not None
            if not twin.stdout.readline():
                missing("this kernel makes no network namespaces")
            process = Process.find(twin.pid)
            assert process is not None
            rows = [row for row in tcp_sockets(twin.pid) if row.local[1] == ports[0] and row.remote[1] == ports[1]]
            assert rows
            assert rows[0].inode in (process.socket_inodes() or ())
            check_peer(client, ours)
            with pytest.raises(PeerError):
                check_peer(client, process)
            twin.kill()


def test_the_sockets_of_a_process_are_its_own() -> None:
    ourselves = Process.find(os.getpid())
    assert ourselves is not None
    name = f"peers\n1: 2\t{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"\0{name}")
        sock.listen(1)
        rows = [row for row in unix_sockets_of(ourselves) if row.inode == os.fstat(sock.fileno()).st_ino]
    assert [(row.path, row.listening, row.connected) for row in rows] == [(f"@{name}", True, False)]
