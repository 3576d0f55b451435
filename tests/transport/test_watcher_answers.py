# SPDX-License-Identifier: Apache-2.0
"""The watcher undoes what it is to undo whatever its monitor still answers the client before, as QEMU does at times.

The monitor is played: it answers as QEMU's does, with the id of the command, and carries out what changes something.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.unixsock import UnixEndpoint
from libmicrovmi_py.transport.watcher import Job, Watcher, Word

GREETING = {"QMP": {"version": {}, "capabilities": ["oob"]}}
EVENT = {"timestamp": {"seconds": 1, "microseconds": 2}, "event": "VSERPORT_CHANGE", "data": {"id": "a", "open": True}}
RESULT: dict[str, Any] = {"return": {}}
ERROR = {"error": {"class": "GenericError", "desc": "no"}}
OF_ANOTHER = {"return": {"status": "none"}, "id": 2}
OF_A_THIRD = {"id": "3", "error": {"class": "CommandNotFound", "desc": "no"}}

MARK, STUB, LOG = "microvmi-background-snapshot", "microvmi-events", "microvmi-log-1"

SETS = {3: "another's", 1 << 30 | 5: "microvmi"}
"""Of descriptors: what they are known by."""

ORDERS: dict[Job, list[str]] = {
    Job.PAUSE: ["cont"],
    Job.SNAPSHOT: ["migrate-set-capabilities", "chardev-remove", "closefd", "remove-fd"],
    Job.EVENTS: ["chardev-remove", "closefd", "cont"],
    Job.OBSERVE: ["log none", "logfile /dev/null", "chardev-remove"],
}
"""What each job has QEMU do, beside what it asks."""

JOBS = pytest.mark.parametrize("job", Job, ids=lambda job: job.name.lower())


class Monitor:
    """That of a machine in which killed processes have left what each of the jobs undoes."""

    def __init__(self, path: Path, before: Sequence[Any], behind: Sequence[Any], indent: int | None) -> None:
        self.orders: list[str] = []
        self.refuses = ""
        """The class of the error that ``qmp_capabilities`` is answered with, if it is."""
        self.waits = 0.0
        """Seconds before it greets; whether something comes meanwhile is ``hurried``."""
        self.hurried = False
        self._before, self._behind, self._indent = before, behind, indent
        self._status = "paused"
        self._labels = [MARK, STUB, LOG]
        self._sets = {number: {"fd": 9, "opaque": word} for number, word in SETS.items()}
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()

    def play(self, status: str) -> None:
        """Serve one client after the other until :meth:`end`."""
        self._status = status
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, client.makefile("rb") as lines, contextlib.suppress(OSError):  # it hangs up at any time
                self._talk(client, lines)

    def end(self) -> None:
        """Take no more clients."""
        self._listener.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()

    def _talk(self, client: socket.socket, lines: Any) -> None:
        self._send(client, *self._before)
        self.hurried = bool(select.select([client], [], [], self.waits)[0])
        self._send(client, GREETING, *self._behind)
        for line in lines:
            request = json.loads(line)
            told = {"id": request["id"]} if "id" in request else {}
            if self.refuses and request["execute"] == "qmp_capabilities":
                answer = {**told, "error": {"class": self.refuses, "desc": "no"}}
            else:
                answer = {"return": self._done(request["execute"], request.get("arguments", {})), **told}
            self._send(client, EVENT, *self._behind, answer)

    def _send(self, client: socket.socket, *messages: Any) -> None:
        text = "".join(json.dumps(message, indent=self._indent) + "\r\n" for message in messages)
        client.sendall(text.encode())

    def _done(self, command: str, arguments: dict[str, Any]) -> Any:
        questions = {
            "qmp_capabilities": {},
            "query-status": {"status": self._status},
            "query-migrate": {"status": "completed"},
            "query-fdsets": [{"fds": [given], "fdset-id": number} for number, given in self._sets.items()],
            "query-chardev": [
                {"label": label, "filename": "disconnected:unix:", "frontend-open": False} for label in self._labels
            ],
        }
        if command in questions:
            return questions[command]
        self.orders.append(arguments.get("command-line", command))
        if command == "cont":
            self._status = "running"
        if command == "chardev-remove":
            self._labels.remove(arguments["id"])
        if command == "remove-fd":
            assert self._sets.pop(arguments["fdset-id"])["opaque"] == "microvmi"
        return "" if command == "human-monitor-command" else {}


@contextlib.contextmanager
def monitor(
    folder: Path, job: Job, before: Sequence[Any] = (), behind: Sequence[Any] = (), indent: int | None = None
) -> Iterator[Monitor]:
    """A machine that stands, as a job finds it. What it answers the client before comes where it is named."""
    played = Monitor(folder / "monitor", before, behind, indent)
    thread = threading.Thread(target=played.play, args=("debug" if job is Job.EVENTS else "paused",))
    thread.start()
    try:
        yield played
    finally:
        played.end()
        thread.join()
        played.close()


def undo(job: Job, folder: Path) -> None:
    """Have the watcher do what it does when its process was killed, until it has ended."""
    process = Process.find(os.getpid())
    assert process
    path = str(folder / "monitor")
    watcher, (near, far) = Watcher(job), socket.socketpair()
    with near, far:
        watcher.start(UnixEndpoint(path, path), process, near.fileno())
        if job is Job.OBSERVE:
            watcher.connection.sendall(f"{LOG} /dev/null\n".encode())
        watcher.say(Word.TAKE_OVER)
        assert watcher.wait(Deadline(20))
    watcher.end()


@JOBS
@pytest.mark.parametrize("indent", [None, 4], ids=["lines", "indented"])
def test_what_is_left_is_undone(tmp_path: Path, job: Job, indent: int | None) -> None:
    with monitor(tmp_path, job, indent=indent) as played:
        undo(job, tmp_path)
    assert played.orders == ORDERS[job]


@JOBS
@pytest.mark.parametrize(
    "late",
    [[RESULT], [ERROR], [RESULT, RESULT], [EVENT, OF_ANOTHER], [OF_A_THIRD]],
    ids=["a result", "an error", "two results", "a result with an id", "an error with an id"],
)
@pytest.mark.parametrize("place", ["before", "behind"])
def test_so_it_is_by_a_monitor_that_answers_the_client_before(
    tmp_path: Path, job: Job, late: list[Any], place: str
) -> None:
    """It does that in front of its greeting, or at any time behind it."""
    before, behind = (late, []) if place == "before" else ([], late)
    with monitor(tmp_path, job, before, behind) as played:
        undo(job, tmp_path)
    assert played.orders == ORDERS[job]


def test_what_comes_before_the_greeting_is_not_taken_for_it(tmp_path: Path) -> None:
    with monitor(tmp_path, Job.PAUSE, before=[RESULT]) as played:
        played.waits = 0.2
        undo(Job.PAUSE, tmp_path)
    assert played.orders == ORDERS[Job.PAUSE]
    assert not played.hurried


@JOBS
def test_so_it_is_where_the_client_before_has_ended_the_negotiation(tmp_path: Path, job: Job) -> None:
    with monitor(tmp_path, job, behind=[RESULT]) as played:
        played.refuses = "CommandNotFound"
        undo(job, tmp_path)
    assert played.orders == ORDERS[job]


@JOBS
def test_a_monitor_that_refuses_otherwise_is_told_nothing(tmp_path: Path, job: Job) -> None:
    with monitor(tmp_path, job) as played:
        played.refuses = "GenericError"
        undo(job, tmp_path)
    assert played.orders == []
