# SPDX-License-Identifier: Apache-2.0
"""The QMP client against a server that misbehaves in every way a stream allows."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import pytest

from libmicrovmi_py.errors import TimeoutExpiredError
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.messages import DEEPEST_MESSAGE, LARGEST_MESSAGE, QmpProtocolError
from libmicrovmi_py.transport.qmp import QmpCommandError, QmpHangupError, SocketClient

GREETING = {"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}
EVENT = {"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}

Server = Callable[["Peer"], None]


class Peer:
    """The server's end: reads requests, sends what a test wants."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._lines = sock.makefile("rb")

    def send(self, *messages: Mapping[str, object], indent: int | None = None) -> None:
        text = "".join(json.dumps(message, indent=indent).replace("\n", "\r\n") + "\r\n" for message in messages)
        self.sock.sendall(text.encode())

    def request(self) -> dict[str, object]:
        message: dict[str, object] = json.loads(self._lines.readline())
        return message

    def negotiate(self) -> None:
        self.send(GREETING)
        self.send({"return": {}, "id": self.request()["id"]})

    def close(self) -> None:
        self._lines.close()
        self.sock.close()


@contextlib.contextmanager
def connected(server: Server, seconds: float = 5.0) -> Iterator[SocketClient]:
    """A client whose other end runs ``server`` in a thread."""
    near, far = socket.socketpair()
    peer = Peer(far)
    thread = threading.Thread(target=server, args=(peer,))
    thread.start()
    try:
        with SocketClient(near, Deadline(seconds), last_id=0) as client:
            yield client
    finally:
        thread.join()
        peer.close()


def greeted(client: SocketClient) -> SocketClient:
    client.greet(Deadline(5))
    return client


def answering(*parts: bytes, pause: float = 0.0) -> Server:
    """A server that greets and answers the next request with these bytes."""

    def server(peer: Peer) -> None:
        peer.negotiate()
        peer.request()
        for part in parts:
            peer.sock.sendall(part)
            time.sleep(pause)

    return server


def test_greets_and_runs_a_command_with_arguments() -> None:
    requests = []

    def server(peer: Peer) -> None:
        peer.negotiate()
        requests.append(peer.request())
        peer.send({"return": {"running": True}, "id": requests[0]["id"]})

    with connected(server) as client:
        assert greeted(client).execute("human-monitor-command", command_line="info mtree", cpu_index=1) == {
            "running": True
        }
    assert requests[0]["execute"] == "human-monitor-command"
    assert requests[0]["arguments"] == {"command-line": "info mtree", "cpu-index": 1}


def test_skips_events_before_the_greeting_and_between_replies() -> None:
    def server(peer: Peer) -> None:
        peer.send(EVENT, GREETING, EVENT, EVENT)
        peer.send(EVENT, {"return": {}, "id": peer.request()["id"]}, EVENT)
        peer.send(EVENT, {"return": 7, "id": peer.request()["id"]})

    with connected(server) as client:
        assert greeted(client).execute("query-status") == 7


def test_skips_replies_to_other_requests() -> None:
    with connected(answering(b'{"return": 1, "id": 99}\n{"return": 2, "id": 2}\n')) as client:
        assert greeted(client).execute("query-status") == 2


def test_answers_are_taken_in_any_order_and_replies_of_odd_ids_by_nobody() -> None:
    asked: list[object] = []

    def server(peer: Peer) -> None:
        peer.negotiate()
        asked.extend(peer.request()["execute"] for _ in range(3))
        peer.sock.sendall(b'{"return": 0, "id": [2]}\n{"return": 0, "id": 4}\n{"return": 0, "id": {"a": 1}}\n')
        peer.send(*({"return": number, "id": number} for number in (2, 3, 4)))

    with connected(server) as client:
        greeted(client)
        first, second, third = (client.ask(name) for name in "abc")
        assert second.result() == 3
        assert (first.result(), third.result()) == (2, 4)
    assert asked == ["a", "b", "c"]


def test_tells_the_last_event_about_the_run_state() -> None:
    events = b'{"event": "STOP"}\n{"event": ["STOP"]}\n{"event": "NIC_RX_FILTER_CHANGED"}\n'
    with connected(answering(events + b'{"return": {}, "id": 2}\n')) as client:
        assert greeted(client).execute("stop") == {}
        assert client.run_event == "STOP"


def test_joins_a_line_that_arrives_byte_by_byte() -> None:
    parts = [bytes([byte]) for byte in b'{"return": "\\u00e9", "id": 2}\r\n']
    with connected(answering(*parts, pause=0.001)) as client:
        assert greeted(client).execute("query-status") == "é"


def test_takes_several_messages_that_arrive_at_once() -> None:
    with connected(answering(b'{"event": "A"}\n\n{"return": 1, "id": 2}\n{"return": 2, "id": 3}\n')) as client:
        assert greeted(client).execute("first") == 1
        assert client.execute("second") == 2


def test_understands_a_server_that_indents() -> None:
    def server(peer: Peer) -> None:
        peer.send(GREETING, indent=4)
        peer.send(EVENT, {"return": {}, "id": peer.request()["id"]}, indent=4)
        peer.send({"return": [{"a": {}}, {"b": 1}], "id": peer.request()["id"]}, EVENT, indent=4)

    with connected(server) as client:
        assert greeted(client).execute("query-cpus-fast") == [{"a": {}}, {"b": 1}]


def test_human_returns_the_text_with_plain_line_ends() -> None:
    with connected(answering(b'{"return": "one\\r\\ntwo\\r\\n", "id": 2}\n')) as client:
        assert greeted(client).human("info mtree -f") == "one\ntwo\n"


def test_an_error_reply_names_the_command_and_the_description() -> None:
    reply = b'{"id": 2, "error": {"class": "GenericError", "desc": "no such thing"}}\n'
    with connected(answering(reply)) as client, pytest.raises(QmpCommandError, match="cont: no such thing") as caught:
        greeted(client).execute("cont")
    assert caught.value.kind == "GenericError"


@pytest.mark.parametrize(
    "garbage",
    [b"QEMU 7.2 monitor - type 'help'\r\n", b"[1]\n", b"{nonsense}\n", b"\xff\xfe\n", b'{"a":\n{"b": 1}\n'],
)
def test_garbage_instead_of_a_greeting_is_no_qmp(garbage: bytes) -> None:
    with (
        connected(lambda peer: peer.sock.sendall(garbage)) as client,
        pytest.raises(QmpProtocolError, match="not a QMP"),
    ):
        client.greet(Deadline(5))


LATE_REPLIES: tuple[Mapping[str, object], ...] = (
    {"return": {}},
    {"return": {"status": "running"}, "id": 1},
    {"error": {"class": "GenericError", "desc": "no"}, "id": 2},
)


def test_what_the_client_before_asked_is_answered_to_nobody() -> None:
    def serve(peer: Peer) -> None:
        peer.send(*LATE_REPLIES, EVENT)
        peer.negotiate()
        number = peer.request()["id"]
        peer.send({"return": "old", "id": 1}, {"return": "old", "id": 2}, {"return": "new", "id": number})

    near, far = socket.socketpair()
    thread = threading.Thread(target=serve, args=(Peer(far),))
    thread.start()
    with SocketClient(near, Deadline(5)) as client:
        assert greeted(client).execute("query-status") == "new"
    thread.join()
    far.close()


@pytest.mark.parametrize(
    "late",
    [[{"error": {"class": "GenericError", "desc": "no"}}], [{"return": {}}, {"return": {}}]],
    ids=["an error", "two results"],
)
def test_nor_is_what_it_asked_without_an_id(late: list[Mapping[str, object]]) -> None:
    def serve(peer: Peer) -> None:
        peer.send(GREETING, *late)
        peer.send({"return": {}, "id": peer.request()["id"]})
        for state in ("running", "paused"):
            number = peer.request()["id"]
            peer.send(*late, {"return": {"status": state}, "id": number})

    with connected(serve) as client:
        assert greeted(client).execute("query-status") == {"status": "running"}
        assert client.execute("stop") == {"status": "paused"}


@pytest.mark.parametrize(("kind", "result"), [("CommandNotFound", 7), ("GenericError", None)])
def test_what_the_client_before_asked_may_have_ended_the_negotiation(kind: str, result: int | None) -> None:
    def serve(peer: Peer) -> None:
        peer.send(GREETING)
        peer.send({"error": {"class": kind, "desc": "no more"}, "id": peer.request()["id"]})
        peer.send({"return": 7, "id": peer.request()["id"]})

    with connected(serve) as client:
        greeted(client)
        refused = contextlib.nullcontext() if result else pytest.raises(QmpCommandError, match="qmp_capabilities")
        with refused:
            assert client.execute("query-status") == result


def test_clients_number_their_commands_differently() -> None:
    near, far = socket.socketpair()
    with near, far:
        first, second = (SocketClient(near, Deadline(5)).ask("query-status").number for _ in range(2))
    assert first != second


def test_an_object_that_is_no_greeting_is_no_qmp() -> None:
    with connected(lambda peer: peer.send({"hello": 1})) as client, pytest.raises(QmpProtocolError, match="hello"):
        client.greet(Deadline(5))


def test_a_reply_without_a_result_is_an_error() -> None:
    with connected(answering(b'{"id": 2}\n')) as client, pytest.raises(QmpProtocolError, match="without a result"):
        greeted(client).execute("cont")


def test_a_message_beyond_all_limits_is_given_up() -> None:
    def server(peer: Peer) -> None:
        block = b'{"' + b"x" * (1 << 20)
        with contextlib.suppress(OSError):
            for _ in range((LARGEST_MESSAGE >> 20) + 16):
                peer.sock.sendall(block)

    near, far = socket.socketpair()
    thread = threading.Thread(target=server, args=(Peer(far),))
    thread.start()
    with SocketClient(near, Deadline(30)) as client, pytest.raises(QmpProtocolError, match="4 MiB"):
        client.greet(Deadline(30))
    thread.join()
    far.close()


def nested(depth: int) -> bytes:
    """An answer of objects and lists within each other, and of brackets in texts, which are no such."""
    inner = b'"[{\\"[\\\\"'
    for level in range(depth - 1):
        inner = b"[" + inner + b"]" if level % 2 else b'{"a": ' + inner + b"}"
    return b'{"id": 2, "return": ' + inner + b"}\n"


def test_objects_within_each_other_are_read_to_a_depth() -> None:
    with connected(answering(nested(DEEPEST_MESSAGE))) as client:
        assert greeted(client).execute("query-status")


WRONG_NESTS = [nested(DEEPEST_MESSAGE + 1), nested(900), b"{" * 2_000_000 + b"}\n", b'{"a": [}}\n']


@pytest.mark.parametrize("answer", WRONG_NESTS, ids=["a bit", "much", "never closed", "crossed"])
def test_deeper_ones_are_refused_before_they_take_stack(answer: bytes) -> None:
    with connected(answering(answer)) as client, pytest.raises(QmpProtocolError, match="not a QMP server"):
        greeted(client).execute("query-status")


def test_an_answer_takes_memory_and_time_by_its_limit() -> None:
    program = (
        "import resource, socket, threading\n"
        "from libmicrovmi_py.transport.deadline import Deadline\n"
        "from libmicrovmi_py.transport.messages import LARGEST_MESSAGE\n"
        "from libmicrovmi_py.transport.qmp import SocketClient\n"
        "answer = b'{\"return\": [' + b'{},' * ((LARGEST_MESSAGE - 100) // 3) + b'{}], \"id\": 1}\\n'\n"
        "resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))\n"
        "near, far = socket.socketpair()\n"
        "threading.Thread(target=far.sendall, args=(answer,)).start()\n"
        "print(len(SocketClient(near, Deadline(20), last_id=0).records('query-memdev')) > 1_000_000)\n"
    )
    started = time.monotonic()
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.stdout == "True\n", result.stderr
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("sent", [b"", b'{"QMP": '], ids=["at once", "within a line"])
def test_a_hang_up_before_the_greeting_is_told(sent: bytes) -> None:
    def server(peer: Peer) -> None:
        peer.sock.sendall(sent)
        peer.sock.shutdown(socket.SHUT_RDWR)

    with connected(server) as client, pytest.raises(QmpHangupError):
        client.greet(Deadline(5))


def test_sending_to_a_server_that_hung_up_raises_no_signal() -> None:
    program = (
        "import signal, socket\n"
        "from libmicrovmi_py.transport.deadline import Deadline\n"
        "from libmicrovmi_py.transport.qmp import QmpHangupError, SocketClient\n"
        "signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
        "near, far = socket.socketpair()\n"
        "far.close()\n"
        "with SocketClient(near, Deadline(5)) as client:\n"
        "    try:\n        client.execute('cont')\n"
        "    except QmpHangupError:\n        print('told')\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "told\n")


def test_a_silent_server_is_a_timeout() -> None:
    release = threading.Event()
    started = time.monotonic()

    def server(_: Peer) -> None:
        release.wait(10)

    with connected(server) as client:
        with pytest.raises(TimeoutExpiredError, match=r"within 0\.1 s"):
            client.greet(Deadline(0.1))
        assert time.monotonic() - started < 2
        release.set()


def test_endless_events_do_not_hold_off_the_time_limit() -> None:
    done = threading.Event()

    def server(peer: Peer) -> None:
        peer.negotiate()
        peer.request()
        with contextlib.suppress(OSError):
            while not done.is_set():
                peer.send(EVENT)
                time.sleep(0.001)

    with connected(server, seconds=0.3) as client:
        with pytest.raises(TimeoutExpiredError):
            greeted(client).execute("query-status")
        done.set()


def test_a_server_that_stops_reading_is_a_timeout() -> None:
    release = threading.Event()

    def server(peer: Peer) -> None:
        peer.negotiate()
        release.wait(10)

    with connected(server, seconds=0.3) as client:
        with pytest.raises(TimeoutExpiredError):
            greeted(client).execute("x" * (8 << 20))
        release.set()
