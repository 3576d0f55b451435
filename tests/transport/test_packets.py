# SPDX-License-Identifier: Apache-2.0
"""The packets of a debugger's stub whose machine runs at times, and its stops, against a peer that says anything."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import suppress

import pytest
from transport.stub_peer import OTHER, STOP, number, packet, peer

from libmicrovmi_py.errors import DriverUnavailableError, IoError, TimeoutExpiredError
from libmicrovmi_py.transport.packets import Plan, Quiet, StubPackets

QUIET = Quiet([0xFFFF888000001000], 0x000F_FFFF_FFFF_F000)
QUESTIONS = ["g", "p1d", "Hg2", "p1d"]


def test_questions_are_sent_in_one_go_and_their_answers_kept_apart() -> None:
    with peer(b"OK", b"", b"m}\x03x") as (client, far):
        assert client.ask(["Hg1", "z", "q"]) == [b"OK", b"", b"m#x"]
        assert far.recv(100) == b"++$Hg1#e0++$z#7a++$q#71"  # one acknowledges, one stops a machine that runs


def test_nothing_is_asked_and_nothing_answered() -> None:
    with peer() as (client, _):
        assert client.ask([]) == []


def test_stops_and_answers_are_taken_apart_in_any_order() -> None:
    with peer(STOP, b"OK", OTHER, b"E01") as (client, _):
        assert client.ask(["a", "b"]) == [b"OK", b"E01"]
        assert [client.stop_told(), client.stop_told(), client.stop_told()] == [STOP, OTHER, None]


def test_a_packet_that_comes_byte_by_byte_is_taken_when_it_is_whole() -> None:
    with peer() as (client, far):
        for byte in b"++" + packet(b"T02thread:01;"):
            assert client.stop_told() is None
            far.send(bytes([byte]))
        assert client.stop_told() == b"T02thread:01;"


@pytest.mark.parametrize("wrong", [b"x", b"-", b"$OK#00", b"$OK#zz", b"+$OK#9A", b"$}#7d", b"$" + b"1" * 70_000])
def test_what_is_no_packet_is_told(wrong: bytes) -> None:
    with peer() as (client, far):
        far.sendall(wrong)
        with pytest.raises(IoError, match="not a debugger's stub"):
            client.ask(["g"])


def test_more_packets_than_anybody_asked_for_are_told() -> None:
    with peer(*[STOP] * 4000) as (client, _), pytest.raises(IoError, match="too many"):
        client.ask(["g"])


def say(far: socket.socket, data: bytes) -> None:
    """As much of it as is listened to."""
    with suppress(OSError):
        far.sendall(data)


@pytest.mark.parametrize(("answer", "count"), [(b"1" * 30_000, 40), (b"1", 2049)])
def test_more_answers_than_there_is_room_for_are_told(answer: bytes, count: int) -> None:
    with peer() as (client, far):
        far.setblocking(True)
        thread = threading.Thread(target=say, args=(far, packet(answer) * count))
        thread.start()
        with pytest.raises(IoError, match="too many"):
            client.ask(["g"] * count)
        client.close()
        thread.join()


@pytest.mark.parametrize("said", [[], [b"OK"]])
def test_a_peer_that_hangs_up_is_told(said: list[bytes]) -> None:
    with peer(*said) as (client, far):
        far.close()
        with pytest.raises(DriverUnavailableError, match="somebody else's"):
            client.ask(["a", "b"])
        with pytest.raises(DriverUnavailableError, match="Broken pipe"):
            client.send(b"x")


def test_an_answer_that_does_not_come_is_awaited_for_so_long() -> None:
    with peer(b"OK", seconds=0.1) as (client, _), pytest.raises(TimeoutExpiredError, match=r"within 0\.1 s"):
        client.ask(["a", "b"])


def test_who_waits_for_an_answer_keeps_no_processor_busy() -> None:
    """It is looked for without a sleep for a moment only."""
    with peer(seconds=0.3) as (client, _):
        began = time.thread_time()
        with pytest.raises(TimeoutExpiredError):
            client.ask(["g"])
        assert time.thread_time() - began < 0.05


def test_a_peer_that_takes_nothing_is_told() -> None:
    with peer(seconds=0.1) as (client, _), pytest.raises(TimeoutExpiredError, match=r"within 0\.1 s"):
        client.send(bytes(1 << 24))


def test_a_machine_that_goes_on_has_heard_of_it() -> None:
    with peer() as (client, far):
        goes = threading.Thread(target=client.go, args=("vCont;c",))
        goes.start()
        time.sleep(0.1)
        assert goes.is_alive()
        assert far.recv(100) == b"++$vCont;c#a8"
        far.sendall(b"+" + packet(STOP))
        goes.join(5)
        assert not goes.is_alive()
        assert client.stop_told() == STOP


def test_a_stub_that_acknowledges_nothing_is_not_waited_for_for_ever() -> None:
    with peer(seconds=0.1) as (client, far):
        client.go("vCont;c")
        assert far.recv(100) == b"++$vCont;c#a8"


# ---------------------------------------------------------------------------------------------------------------- stops


def test_a_stop_is_told_with_the_answers_to_the_plan() -> None:
    with peer(STOP, b"0011", b"OK") as (client, far):
        assert client.stand(Plan(["g", "Hg1"]), 1) == [STOP, b"0011", b"OK"]
        assert far.recv(100) == b"++$g#67++$Hg1#e0"


@pytest.mark.parametrize("stop", [b"T02thread:01;", b"S05"])
def test_of_another_stop_nothing_is_asked(stop: bytes) -> None:
    with peer(stop) as (client, far):
        assert client.stand(Plan(["g"]), 1) == [stop]
        with pytest.raises(BlockingIOError):
            far.recv(100)


def test_a_machine_that_does_not_stop_is_left_running() -> None:
    with peer() as (client, far):
        assert client.stand(Plan(["g"]), 0.05) is None
        with pytest.raises(BlockingIOError):
            far.recv(100)


def test_answers_that_do_not_come_are_told() -> None:
    with peer(STOP, seconds=0.1) as (client, _), pytest.raises(TimeoutExpiredError):
        client.stand(Plan(["g"]), 5)


def planned(first: int, second: int) -> Plan:
    """Of two vCPUs, whose numbers are known."""
    plan = Plan(QUESTIONS, "vCont;c", QUIET, 2)
    plan.known[0], plan.known[1] = first, second
    return plan


def answers(first: int, second: int) -> list[bytes]:
    return [b"00", number(first), b"OK", number(second)]


def test_stops_without_a_change_are_passed_over() -> None:
    plan = planned(0x1000, 0x2000)
    with peer(STOP, *answers(0x1FFF, 0x2000), STOP, *answers(0x1000, 0x3000)) as (client, far):
        assert client.stand(plan, 5) == [STOP, *answers(0x1000, 0x3000)]
        asked = b"++$g#67++$p1d#05++$Hg2#e1++$p1d#05"
        assert far.recv(200) == asked + packet(b"vCont;c").join([b"++", asked])
    assert plan.passed == 1


@pytest.mark.parametrize(
    ("stop", "told"),
    [
        (OTHER, answers(0x1000, 0x2000)),
        (b"T05thread:01;rwatch:ffff888000001000;", answers(0x1000, 0x2000)),
        (b"T05thread:01;", answers(0x1000, 0x2000)),
        (STOP, [*answers(0x8000_0000_0000_0000, 0x2000)[:-1], b"E14"]),
        (STOP, [*answers(0x1000, 0x2000)[:-1], number(0x2000) + b"0"]),
        (STOP, [*answers(0x1000, 0x2000)[:-1], b"x" * 16]),
        (STOP, answers(0x0008_0000_0000_1000, 0x2000)),
    ],
)
def test_what_is_not_surely_of_no_interest_is_told(stop: bytes, told: list[bytes]) -> None:
    plan = planned(0x1000, 0x2000)
    with peer(stop, *told) as (client, _):
        assert client.stand(plan, 5) == [stop, *told]
    assert plan.passed == 0


def test_without_a_way_to_go_on_every_stop_is_told() -> None:
    plan = Plan(["g", "p1d"], "", QUIET, 1)
    with peer(STOP, b"00", number(0)) as (client, _):
        assert client.stand(plan, 5) == [STOP, b"00", number(0)]


# ------------------------------------------------------------------------------------------------------------- waking


def test_a_signal_that_comes_meanwhile_is_no_stop() -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
    try:
        with peer() as (client, far):
            plan = Plan()
            assert [client.stand(plan, 0.0005) for _ in range(2000)] == [None] * 2000
            far.send(packet(STOP))
            assert client.stand(plan, 5) == [STOP]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_who_waits_is_woken_by_another_thread() -> None:
    with peer() as (client, far):
        thread = threading.Timer(0.05, client.wake)
        thread.start()
        started = time.monotonic()
        assert client.stand(Plan(), 60) is None
        assert time.monotonic() - started < 30
        thread.join()
        far.send(packet(STOP))
        assert client.stand(Plan(), 30) == [STOP]


def test_who_is_woken_does_not_take_the_stop_that_has_come() -> None:
    with peer(STOP) as (client, _):
        client.wake()
        assert client.stand(Plan(), 60) is None
        assert client.stop_told() == STOP


@pytest.mark.parametrize("woken", [False, True])
def test_a_stub_that_has_stopped_so_often_already_keeps_nobody(woken: bool) -> None:
    plan = planned(0, 0)
    with peer(*[STOP, *answers(0, 0)] * 200) as (client, _):
        if woken:
            client.wake()
        assert client.stand(plan, 60 if woken else 0) is None
    assert plan.passed < 200


def test_a_client_that_is_closed_asks_nobody() -> None:
    with peer() as (client, _):
        client.close()
        with pytest.raises(DriverUnavailableError):
            client.ask(["g"])


def test_its_descriptors_are_closed_with_it() -> None:
    before = os.listdir("/proc/self/fd")
    with peer() as (client, _):
        assert isinstance(client, StubPackets)
    del client, _
    assert os.listdir("/proc/self/fd") == before
