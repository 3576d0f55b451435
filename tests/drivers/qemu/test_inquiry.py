# SPDX-License-Identifier: Apache-2.0
"""Asking many monitors at once: servers of every kind, each of them this process, and none makes the others wait."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from libmicrovmi_py.drivers.qemu import inquiry
from libmicrovmi_py.drivers.qemu.inquiry import Inquiry, ask_all
from libmicrovmi_py.drivers.qemu.machines import Qemu
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.unixsock import UnixEndpoint

TRIES = 8
"""On a busy host even these servers may not get their turn within the limit."""

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\r\n'
TELNET = b"\xff\xfb\x03\xff\xfb\x01\xff\xfd\x00"

Server = Callable[[socket.socket], None]


def answers(client: socket.socket, indent: int | None = None) -> None:
    """Answer what is asked, with an event before each answer."""
    with client.makefile("rb") as lines:
        for line in lines:
            request = json.loads(line)
            for message in ({"event": "NOISE"}, {"return": {"of": request["execute"]}, "id": request["id"]}):
                client.sendall(json.dumps(message, indent=indent).replace("\n", "\r\n").encode() + b"\r\n")


def plain(client: socket.socket) -> None:
    client.sendall(GREETING)
    answers(client)


def pretty(client: socket.socket) -> None:
    client.sendall(b'{\r\n    "QMP": {\r\n    }\r\n}\r\n')
    answers(client, indent=4)


def telnet(client: socket.socket) -> None:
    for byte in TELNET:
        client.sendall(bytes([byte]))
        time.sleep(0.002)
    plain(client)


def byte_by_byte(client: socket.socket) -> None:
    for byte in GREETING:
        client.sendall(bytes([byte]))
    answers(client)


def answers_the_one_before(client: socket.socket) -> None:
    late = b'{"return": {}}\n' + b"".join(b'{"return": "late", "id": %d}\n' % number for number in range(5))
    client.sendall(late + GREETING + late)
    answers(client)


def silent(client: socket.socket) -> None:
    client.recv(1)


def half(client: socket.socket) -> None:
    client.sendall(GREETING[:20])
    client.recv(1)


def greets_only(client: socket.socket) -> None:
    client.sendall(GREETING)
    while client.recv(4096):
        pass


def half_an_option(client: socket.socket) -> None:
    client.sendall(TELNET[:2])
    client.recv(1)


def human(client: socket.socket) -> None:
    client.sendall(b"QEMU 7.2.0 monitor - type 'help' for more information\r\n(qemu) ")
    client.recv(1)


def garbage(client: socket.socket) -> None:
    client.sendall(b"SSH-2.0-OpenSSH\r\n")


def nested(client: socket.socket) -> None:
    client.sendall(b'{"QMP": ' + b"[" * 5000 + b"]" * 5000 + b"}\n")


def answers_without_greeting(client: socket.socket) -> None:
    client.sendall(b'{"return": {"status": "running"}, "id": 1}\n' * 5)


def greets_otherwise(client: socket.socket) -> None:
    client.sendall(b'{"hello": 1}\n')


def floods(client: socket.socket) -> None:
    client.sendall(GREETING)
    while True:
        client.sendall(b'{"event": "NOISE"}\n' * 1000)


def one_endless_line(client: socket.socket) -> None:
    client.sendall(GREETING)
    while True:
        client.sendall(b" " * 65536)


def hangs_up(client: socket.socket) -> None:
    client.shutdown(socket.SHUT_RDWR)


GOOD = (plain, pretty, telnet, byte_by_byte, answers_the_one_before)
BAD: dict[Server, str] = {
    silent: "no greeting in time|no answer in time",
    half: "no answer in time",
    greets_only: "no answer in time",
    half_an_option: "no answer in time",
    human: "serves only the human monitor",
    garbage: "not a QMP server: it sent b'SSH-2.0",
    nested: "not a QMP server",
    answers_without_greeting: "closed the connection|connection broke",
    greets_otherwise: "not a QMP server: it greets with",
    floods: "answers with more than 1 MiB",
    one_endless_line: "answers with more than 1 MiB",
    hangs_up: "closed the connection|connection broke",
}


@contextmanager
def serving(folder: Path, server: Server) -> Iterator[UnixEndpoint]:
    """A monitor of this process, which serves one client after the other."""
    path = folder / f"{server.__name__}{len(os.listdir(folder))}"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, contextlib.suppress(OSError):
                    server(client)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield UnixEndpoint(str(path), str(path))
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def this() -> Qemu:
    process = Process.find(os.getpid())
    assert process is not None
    return Qemu(process, "this", ())


def asked(*places: UnixEndpoint) -> Inquiry:
    (one,) = ask_all([Inquiry(this(), places)])
    return one


@pytest.mark.parametrize("server", GOOD)
def test_every_way_to_speak_qmp_is_understood(tmp_path: Path, server: Server) -> None:
    with serving(tmp_path, server) as place:
        one = asked(place)
    assert one.errors == []
    assert one.answers["query-status"] == {"of": "query-status"}
    assert set(one.answers) == set(inquiry.COMMANDS[1:])


@pytest.mark.parametrize("server", BAD)
def test_whoever_does_not_speak_it_is_left_with_a_reason(tmp_path: Path, server: Server) -> None:
    before = time.monotonic()
    with serving(tmp_path, server) as place:
        one = asked(place)
    assert time.monotonic() - before < inquiry.ALL + 1
    assert "query-status" not in one.answers
    ((_, err),) = one.errors
    assert any(word in str(err) for word in BAD[server].split("|")), err


def test_the_next_monitor_is_asked_if_one_does_not_answer(tmp_path: Path) -> None:
    with serving(tmp_path, garbage) as bad, serving(tmp_path, silent) as slow, serving(tmp_path, plain) as good:
        one = asked(bad, slow, good)
        assert "query-status" in one.answers
        assert [place for place, _ in one.errors] == [bad, slow]


def test_those_that_answer_are_answered_whatever_the_others_do(tmp_path: Path) -> None:
    with ExitStack() as stack:
        bad = [stack.enter_context(serving(tmp_path, server)) for server in BAD for _ in range(3)]
        good = [stack.enter_context(serving(tmp_path, plain)) for _ in range(4)]
        for _ in range(TRIES):
            inquiries = [Inquiry(this(), [place]) for place in (*bad, *good)]
            before = time.monotonic()
            done = list(ask_all(inquiries))
            assert time.monotonic() - before < inquiry.ALL + 1
            assert len(done) == len(inquiries)
            told = {inquiry for inquiry in done if "query-status" in inquiry.answers}
            if told == set(inquiries[len(bad) :]):
                break
        assert told == set(inquiries[len(bad) :])


def test_no_more_are_asked_than_the_time_allows_and_all_are_told(tmp_path: Path) -> None:
    with ExitStack() as stack:
        places = [stack.enter_context(serving(tmp_path, silent)) for _ in range(20)]
        inquiries = [Inquiry(this(), [place] * 30) for place in places]
        before = time.monotonic()
        done = list(ask_all(inquiries))
        assert time.monotonic() - before < inquiry.ALL + 1
    assert len(done) == len(inquiries)
    assert not any(inquiry.answers for inquiry in done)


def test_a_list_that_is_left_in_the_middle_leaves_no_connection(tmp_path: Path) -> None:
    with serving(tmp_path, silent) as slow, serving(tmp_path, garbage) as quick:
        before = len(os.listdir("/proc/self/fd"))
        running = ask_all([Inquiry(this(), [slow]), Inquiry(this(), [quick])])
        next(running)
        running.close()  # type: ignore[attr-defined]
        assert len(os.listdir("/proc/self/fd")) <= before + 2  # the servers' ends
