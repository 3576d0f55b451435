# SPDX-License-Identifier: Apache-2.0
"""Connecting to sockets: names that do not fit, full queues, who is on the other end."""

from __future__ import annotations

import gc
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from libmicrovmi_py.errors import DriverUnavailableError, TimeoutExpiredError
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.peers import credentials
from libmicrovmi_py.transport.sockets import UnixRow, unix_sockets, was_left
from libmicrovmi_py.transport.unixsock import TcpEndpoint, UnixEndpoint


def rows(path: str) -> list[UnixRow]:
    return [row for row in unix_sockets() if row.path == path]


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen(0)
        yield server


def endpoint(listener: socket.socket) -> UnixEndpoint:
    return UnixEndpoint(listener.getsockname(), listener.getsockname())


def test_connects_and_names_the_peer(listener: socket.socket) -> None:
    with endpoint(listener).connect(Deadline(5)) as sock:
        assert credentials(sock).pid == os.getpid()


def test_a_path_longer_than_an_address_is_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        server.listen(1)
        gc.collect()  # what an earlier test left in a cycle
        before = len(os.listdir("/proc/self/fd"))
        with UnixEndpoint(str(folder / "s"), "s").connect(Deadline(5)):
            assert len(os.listdir("/proc/self/fd")) == before + 1
        server.accept()[0].close()


def test_an_abstract_name_is_reached() -> None:
    name = f"\0libmicrovmi-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen(1)
        with UnixEndpoint(name, name.replace("\0", "@")).connect(Deadline(5)) as sock:
            assert credentials(sock).pid == os.getpid()


def test_a_full_queue_is_waited_for_and_then_a_timeout(listener: socket.socket) -> None:
    with endpoint(listener).connect(Deadline(5)):
        started = time.monotonic()
        with pytest.raises(TimeoutExpiredError, match="queue was full"):
            endpoint(listener).connect(Deadline(0.1))
        assert 0.1 <= time.monotonic() - started < 2


@pytest.mark.parametrize("name", ["missing", "plain"])
def test_no_socket_there_names_the_path(tmp_path: Path, name: str) -> None:
    (tmp_path / "plain").write_text("")
    with pytest.raises(DriverUnavailableError, match=name):
        UnixEndpoint(str(tmp_path / name), "").connect(Deadline(1))


def test_the_table_tells_listening_waiting_and_accepted(listener: socket.socket) -> None:
    path = listener.getsockname()
    assert [(row.listening, row.connected) for row in rows(path)] == [(True, False)]
    with endpoint(listener).connect(Deadline(5)):
        assert not any(row.inode for row in rows(path) if row.connected)
        accepted, _ = listener.accept()
        with accepted:
            assert [row.inode for row in rows(path) if row.connected] == [os.fstat(accepted.fileno()).st_ino]
    assert not any(row.connected for row in rows(path))


def test_tcp_connects_and_names_what_refuses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with TcpEndpoint("127.0.0.1", port).connect(Deadline(5)) as sock:
            assert credentials(sock).pid == 0
    with pytest.raises(DriverUnavailableError, match=f"127.0.0.1:{port}"):
        TcpEndpoint("127.0.0.1", port).connect(Deadline(5))


def test_rows_that_others_wrote_into_the_table_are_passed_over(listener: socket.socket) -> None:
    """A name may hold a newline and whatever looks like a row after it, or does not."""
    names = [b"\0a\nb", b"\0\n: : : : : : :", b"\0\n1: 2 3 zz 5 6 7 8", b"\0\n" + b"9" * 90, b"\0 \xff\xfe"]
    with ExitStack() as stack:
        for name in names:
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.bind(name)
        assert [row.listening for row in rows(listener.getsockname())] == [True]
        assert [row.path for row in unix_sockets() if row.path.startswith("@ \udcff")] == ["@ \udcff\udcfe"]


@pytest.mark.parametrize("host", ["x" * 64, "a." + "b" * 300, "127.0.0.1\0", "256.0.0.1"])
def test_a_host_that_is_none_is_an_error_of_ours(host: str) -> None:
    with pytest.raises(DriverUnavailableError):
        TcpEndpoint(host, 1).connect(Deadline(5))


def test_a_port_that_is_none_is_an_error_of_ours() -> None:
    with pytest.raises(DriverUnavailableError):
        TcpEndpoint("127.0.0.1", 70000).connect(Deadline(5))


@pytest.mark.parametrize("size", [107, 108, 109])
def test_a_path_as_long_as_an_address_and_a_byte_more(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("d" * (size - len(str(tmp_path)) - 3))
    folder.mkdir()
    monkeypatch.chdir(folder)
    path = str(folder / "s")
    assert len(path) == size
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        server.listen(1)
        UnixEndpoint(path, path).connect(Deadline(5)).close()


def test_who_has_hung_up_is_told_from_who_is_connected(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "s"))
        server.listen()
        client.connect(str(tmp_path / "s"))
        with server.accept()[0] as accepted:
            inode = os.fstat(accepted.fileno()).st_ino
            assert not was_left(inode)
            client.close()
            assert was_left(inode)
        assert not was_left(os.fstat(server.fileno()).st_ino)
