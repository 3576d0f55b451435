# SPDX-License-Identifier: Apache-2.0
"""What a debugger's stub says of its registers: as QEMU says it, and as somebody would to waste our time."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from libmicrovmi_py.drivers.qemu.stub import StubRegister, registers
from libmicrovmi_py.errors import IoError
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.rsp import RspClient

TARGET = '<target><xi:include href="core.xml"/></target>'
PIECE = 4000
SIZE = 400_000


@contextmanager
def described(*files: str) -> Iterator[RspClient]:
    """A client whose stub has those files, in the order in which they are asked for."""
    near, far = socket.socketpair()
    packets = []
    for text in files:
        pieces = [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
        packets += [f"{'l' if piece is pieces[-1] else 'm'}{piece}".encode() for piece in pieces]

    def answer() -> None:
        for packet in packets:
            if far.recv(PIECE):
                far.sendall(b"+$%b#%02x" % (packet, sum(packet) & 0xFF))

    sender = threading.Thread(target=answer)
    sender.start()
    client = RspClient(near, Deadline(30))
    try:
        yield client
    finally:
        client.close()
        sender.join()
        far.close()


def test_registers_are_counted_on_from_a_number_that_is_told_and_comments_are_none() -> None:
    core = '<reg name="a" bitsize="64"/><!-- <reg name="b" bitsize="32"/> --><reg name="c" bitsize="32" regnum="7"/>'
    with described(TARGET, f'{core}<!-- a <!-- b --><reg name="d" bitsize="8"/>') as rsp:
        assert registers(rsp) == {"a": StubRegister(0, 8), "c": StubRegister(7, 4), "d": StubRegister(8, 1)}


@pytest.mark.parametrize("row", ['<reg name="rip" bitsize="64" regnum="x"/>', '<reg name="rip" bitsize="63"/>'])
def test_a_register_without_a_number_or_a_size_is_an_error(row: str) -> None:
    with described(TARGET, row) as rsp, pytest.raises(IoError, match="without a size or a number"):
        registers(rsp)


@pytest.mark.parametrize("text", ["<!--" * (SIZE // 4), f"<reg {'a' * SIZE}>"], ids=["comments", "a name"])
def test_a_description_that_is_all_beginnings_takes_no_time(text: str) -> None:
    started = time.process_time()
    with described(TARGET, text) as rsp, contextlib.suppress(IoError):
        registers(rsp)
    assert time.process_time() - started < 5
