# SPDX-License-Identifier: Apache-2.0
"""The frames of gdb's protocol, of clients that mean well and of others."""

from __future__ import annotations

import random
import socket
import time

import pytest
from tools.gdb.remote import SECONDS, Client, framed

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.fake import FakeDriver
from libmicrovmi_py.tools.gdb.packets import PACKET_SIZE, escaped, unescaped

KNOWN = (
    *(b"?", b"g", b"G00", b"p1", b"P10=00", b"m1000,10", b"M1000,1:00", b"X1000,1:a", b"x0,10", b"Hg1", b"Hc-1", b"T1"),
    *(b"Z0,1000,1", b"z0,1000,1", b"Z2,0,1", b"c", b"s", b"vCont;s:1;c", b"vCont?", b"qC", b"qfThreadInfo", b"k", b"D"),
    *(b"qXfer:features:read:target.xml:0,fff", b"qRcmd,68656c70", b"qSupported:x+", b"QStartNoAckMode", b"vKill;1"),
    *(b"qThreadExtraInfo,1", b"Qqemu.PhyMemMode:1", b"qHostInfo", b"qSymbol::", b"qAttached", b"qRcmd,7", b"qC;", b""),
)
HUGE = (b"f" * 17, b"ffffffffffffffff", b"-1", b"0x10", b"1_0", b"", b" 1", b"99999999", b"\xff", b"zz", b",", b":")


def wait_until_it_runs(driver: FakeDriver) -> None:
    """A client that is gone is noticed at once."""
    end = time.monotonic() + SECONDS
    while not driver.running or driver.left_behind:
        assert time.monotonic() < end, driver.left_behind
        time.sleep(0.005)


def test_a_packet_with_a_wrong_checksum_is_asked_for_again(client: Client) -> None:
    client.raw(b"$qC#00")
    assert client.byte() == b"-"
    assert client.ask(b"qC") == b"QC1"


def test_an_answer_is_sent_again_when_it_is_asked_for(client: Client) -> None:
    assert client.ask(b"qC") == b"QC1"
    client.raw(b"-")
    assert client.content() == b"QC1"


def test_without_acknowledgements_none_are_sent(client: Client) -> None:
    assert client.ask(b"QStartNoAckMode") == b"OK"
    client.acknowledges = False
    client.raw(framed(b"qC") + framed(b"qAttached"))
    assert (client.content(), client.content()) == (b"QC1", b"1")
    client.raw(b"-")
    assert client.ask(b"qC") == b"QC1"


def test_without_acknowledgements_a_wrong_checksum_is_the_end(client: Client, driver: FakeDriver) -> None:
    client.ask(b"QStartNoAckMode")
    client.raw(b"$qC#00")
    assert client.byte() == b""
    wait_until_it_runs(driver)


def test_packets_that_come_in_pieces_are_put_together(client: Client) -> None:
    for byte in framed(b"qAttached"):
        client.raw(bytes((byte,)))
        time.sleep(0.001)
    assert client.byte() == b"+"
    assert client.content() == b"1"


def test_what_is_no_packet_is_passed_over(client: Client) -> None:
    client.raw(b"\0garbage+++\x03\x03\n")
    assert client.ask(b"qC") == b"QC1"


@pytest.mark.parametrize(
    "name", [b"!", b"qWhatever", b"vWhatever", b"Q", b"v", b"\xff\xfe", b"vMustReplyEmpty", b"QNonStop:1"]
)
def test_packets_that_are_not_known_have_an_empty_answer(client: Client, name: bytes) -> None:
    assert client.ask(name) == b""


def test_an_endless_packet_ends_the_connection_and_lets_the_machine_run(client: Client, driver: FakeDriver) -> None:
    assert client.ask(b"qC") == b"QC1"
    assert not driver.running
    with pytest.raises(OSError, match=r"[Bb]roken|reset"):
        client.raw((b"$" + b"m" * PACKET_SIZE) * 1000)
    wait_until_it_runs(driver)


def test_a_client_that_vanishes_in_the_middle_of_a_packet_lets_the_machine_run(path: str, driver: FakeDriver) -> None:
    with Client(path) as client:
        client.ask(b"qC")
        client.raw(b"$m10")
    wait_until_it_runs(driver)


def test_a_client_that_reads_nothing_is_left(path: str, driver: FakeDriver) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.settimeout(1)
        with pytest.raises(TimeoutError):
            connection.sendall(framed(b"m0,3fe0") * 100_000)
        assert not driver.running
        wait_until_it_runs(driver)


def test_bytes_with_a_meaning_are_escaped() -> None:
    every = bytes(range(256))
    assert unescaped(escaped(every)) == every
    assert escaped(b"a}#$*") == b"a}\x5d}\x03}\x04}\x0a"
    assert not set(escaped(every)) & set(b"#$")


def test_no_packet_brings_the_server_down(path: str, driver: FakeDriver, machine: Microvmi) -> None:
    chance = random.Random(12)
    end = time.monotonic() + 2.5
    sent = 0
    while time.monotonic() < end:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        connection.settimeout(0.002)
        with connection:
            try:
                for _ in range(chance.randrange(60)):
                    connection.sendall(mutated(chance))
                    sent += 1
                    connection.recv(1 << 16)
            except OSError:
                continue
    with Client(path) as client:
        assert client.ask(b"qC") == b"QC1"
        assert client.ask(b"D") == b"OK"
    wait_until_it_runs(driver)
    assert sent > 200


def mutated(chance: random.Random) -> bytes:
    """A packet, more or less."""
    content = bytearray(chance.choice(KNOWN))
    for _ in range(chance.randrange(3)):
        match chance.randrange(4):
            case 0 if content:
                content[chance.randrange(len(content))] = chance.randrange(256)
            case 1:
                at = chance.randrange(len(content) + 1)
                content[at:at] = chance.choice(HUGE)
            case 2 if content:
                del content[chance.randrange(len(content)) :]
            case _:
                content += b"," + chance.choice(HUGE)
    whole = framed(bytes(content))
    return whole if chance.random() < 0.9 else whole[chance.randrange(len(whole)) :] + b"\x03"


def test_packets_within_a_request_of_a_browser_are_not_run(path: str, machine: Microvmi, driver: FakeDriver) -> None:
    before, inside = machine.read_physical(0x1000, 4), framed(b"Qqemu.PhyMemMode:1") + framed(b"M1000,4:41424344")
    with Client(path) as client:
        client.raw(b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\n" + inside)
        assert client.byte() == b""
    wait_until_it_runs(driver)
    assert machine.read_physical(0x1000, 4) == before != b"ABCD"
