# SPDX-License-Identifier: Apache-2.0
"""The client of debuggers' stubs against a peer that misbehaves in every way a stream allows."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from fuzz.mutator import SCALE, Mutator

from libmicrovmi_py.errors import IoError, TimeoutExpiredError
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.rsp import LARGEST_PACKET, RspClient


def packet(text: bytes) -> bytes:
    return b"$%b#%02x" % (text, sum(text) & 0xFF)


@contextmanager
def told(*answers: bytes, seconds: float = 5.0, hangs_up: bool = True) -> Iterator[RspClient]:
    """A client whose peer has said all that it says already."""
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    client = RspClient(near, Deadline(seconds))
    far.sendall(b"".join(answers))
    if hangs_up:
        far.shutdown(socket.SHUT_WR)
    try:
        yield client
    finally:
        client.close()
        far.close()


def test_asks_with_a_checksum_and_sends_nothing_that_a_machine_may_swallow_in_its_place() -> None:
    """QEMU's stub takes one byte for the wish to stop a machine that runs, and answers a packet that is whole."""
    near, far = socket.socketpair()
    far.sendall(b"+" + packet(b"OK"))
    RspClient(near, Deadline(5)).order("Hg1")
    assert far.recv(100) == b"$Hg1#e0"
    far.close()
    near.close()


def test_reads_and_writes_registers_lower_bytes_first() -> None:
    with told(b"+" + packet(b"0102000000000080"), b"+" + packet(b"OK")) as client:
        assert client.read_register(16, 8) == 0x8000000000000201
        client.write_register(16, 7, 8)


def test_stops_that_are_told_meanwhile_are_skipped() -> None:
    with told(packet(b"T02thread:01;"), b"+", packet(b"S05"), packet(b"OK")) as client:
        client.order("Hg1")


def test_a_description_comes_in_pieces_with_escapes() -> None:
    with told(packet(b"m<a>"), packet(b"m}\x03}\x5d"), packet(b"l</a>")) as client:
        assert client.read_file("target.xml") == "<a>#}</a>"


WRONG: list[tuple[Callable[[RspClient], object], bytes]] = [
    (lambda client: client.order("Hg1"), packet(b"E22")),
    (lambda client: client.order("Hg1"), packet(b"")),
    (lambda client: client.order("Hg1"), b"$OK#00"),
    (lambda client: client.order("Hg1"), b"-" + packet(b"OK")),
    (lambda client: client.order("Hg1"), b"HTTP/1.1 400\r\n#00"),
    (lambda client: client.order("Hg1"), b""),
    (lambda client: client.order("Hg1"), b"$OK#"),
    (lambda client: client.order("Hg1"), b"$" + b"a" * (LARGEST_PACKET + 5000)),
    (lambda client: client.read_register(0, 8), packet(b"01")),
    (lambda client: client.read_register(0, 8), packet(b"xx" * 8)),
    (lambda client: client.read_register(0, 8), packet(b"E45")),
    (lambda client: client.read_file("a.xml"), packet(b"E00")),
    (lambda client: client.read_file("a.xml"), packet(b"m")),
    (lambda client: client.read_file("a.xml"), packet(b"m" + b"a" * 60_000) * 20),
]


@pytest.mark.parametrize(("action", "answer"), WRONG)
def test_a_wrong_answer_is_an_io_error(action: Callable[[RspClient], object], answer: bytes) -> None:
    near, far = socket.socketpair()
    far.setblocking(False)
    client = RspClient(near, Deadline(5))
    sent = 0
    while sent < len(answer):  # as much as fits: the rest is of no interest then
        try:
            sent += far.send(answer[sent:])
        except BlockingIOError:
            break
    far.shutdown(socket.SHUT_WR)
    with pytest.raises(IoError):
        action(client)
    client.close()
    far.close()


@pytest.mark.parametrize("answer", [b"", b"+", packet(b"T05"), b"$OK"])
def test_a_peer_that_says_nothing_is_not_waited_for(answer: bytes) -> None:
    started = time.monotonic()
    with told(answer, seconds=0.2, hangs_up=False) as client, pytest.raises(TimeoutExpiredError, match="within"):
        client.order("Hg1")
    assert time.monotonic() - started < 2


def test_changed_answers_are_told() -> None:
    right = (
        b"+" + packet(b"PacketSize=1000") + b"+" + packet(b"l<reg name=}\x03/>") + b"+" + packet(b"0011223344556677")
    )
    for number in range(100 * SCALE):
        mutator, data = Mutator("rsp", number), bytearray(right)
        for _ in range(mutator.choice((1, 3, 9))):
            data[mutator.randrange(len(data))] = mutator.choice((0, 0x23, 0x24, 0x2B, 0x7D, mutator.randrange(256)))
        with told(bytes(data)) as client:
            try:
                client.ask("qSupported")
                client.read_file("target.xml")
                client.read_register(0, 8)
            except IoError:
                pass
