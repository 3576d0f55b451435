# SPDX-License-Identifier: Apache-2.0
"""QMP by libvirt: what is libvirt's own, what goes to the monitor, and what becomes of answers and refusals.

The domain is a fake that keeps what it is told, and has the answers of the test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any, cast

import pytest

from libmicrovmi_py.drivers.qemu.libvirt import LibvirtClient
from libmicrovmi_py.errors import DriverUnavailableError, TimeoutExpiredError
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.libvirt import Domain, DomainState, RefusedError
from libmicrovmi_py.transport.messages import LARGEST_MESSAGE, QmpProtocolError
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.qmp import QmpCommandError, QmpHangupError

RUNNING, PAUSED, PAUSED_BY_OTHERS = DomainState(1, 5), DomainState(3, 1), DomainState(3, 0)


class FakeDomain:
    """The methods of ``Domain`` that a client uses."""

    def __init__(self, answer: Callable[[str], bytes] = lambda text: b'{"return": {}}') -> None:
        self.told: list[tuple[str, int | None]] = []
        self.now = PAUSED
        self.refuses = False
        self.takes_descriptors = True
        self._answer = answer

    def command(self, text: str, descriptor: int | None, deadline: Deadline) -> bytes:
        self.told.append((text, descriptor))
        if self.refuses:
            raise RefusedError("libvirt: no")
        return self._answer(text)

    def suspend(self, deadline: Deadline) -> None:
        self._order("suspend")

    def resume(self, deadline: Deadline) -> None:
        self._order("resume")

    def _order(self, name: str) -> None:
        self.told.append((name, None))
        if self.refuses:
            raise RefusedError("libvirt: no")

    def state(self, deadline: Deadline) -> DomainState:
        return self.now


def client_of(domain: FakeDomain, pid: int = 0) -> LibvirtClient:
    process = Process.find(pid or os.getpid())
    assert process is not None
    return LibvirtClient(process, cast("Domain", domain), Deadline(5))


def test_stop_and_cont_are_libvirts_own_and_all_else_is_the_monitors() -> None:
    domain = FakeDomain()
    client = client_of(domain)
    questions = [client.ask("query-status"), client.ask("stop"), client.ask("cont"), client.ask("quit")]
    assert domain.told == []
    assert [question.result() for question in reversed(questions)] == [{}] * 4
    messages = ['{"execute":"query-status"}', "suspend", "resume", '{"execute":"quit"}']
    assert domain.told == [(message, None) for message in messages]


def test_arguments_and_texts_of_the_human_monitor_go_as_they_do_to_a_socket() -> None:
    def answer(text: str) -> bytes:
        return json.dumps(
            {"return": json.loads(text)["arguments"]["command-line"] + "\r\n", "id": "libvirt-7"}
        ).encode()

    domain = FakeDomain(answer)
    assert client_of(domain).human("info status") == "info status\n"


def test_a_descriptor_goes_with_its_command_alone() -> None:
    domain = FakeDomain()
    client = client_of(domain)
    first = client.ask("one")
    second = client.hand_over(7, "getfd", fdname="x")
    client.ask("three").result()
    assert [descriptor for _, descriptor in domain.told] == [None, 7, None]
    assert (first.result(), second.result()) == ({}, {})


def test_a_library_that_takes_no_descriptors_is_told() -> None:
    domain = FakeDomain()
    domain.takes_descriptors = False
    with pytest.raises(DriverUnavailableError, match=r"8.2 and later"):
        client_of(domain).hand_over(7, "getfd", fdname="x")


def test_errors_of_the_monitor_are_raised_where_they_are_taken() -> None:
    domain = FakeDomain(lambda text: b'{"error": {"class": "GenericError", "desc": "not now"}}')
    client = client_of(domain)
    question = client.ask("query-status")
    with pytest.raises(QmpCommandError, match="QEMU refused quit: not now"):
        client.execute("quit")
    with pytest.raises(QmpCommandError, match="QEMU refused query-status: not now"):
        question.result()


@pytest.mark.parametrize("command", ["stop", "query-status"])
def test_what_libvirt_refuses_is_told_with_its_words(command: str) -> None:
    domain = FakeDomain()
    domain.refuses = True
    with pytest.raises(QmpCommandError, match=f"QEMU refused {command}: libvirt: no"):
        client_of(domain).execute(command)


def test_a_machine_that_runs_already_may_be_let_run() -> None:
    domain = FakeDomain()
    domain.refuses, domain.now = True, RUNNING
    assert client_of(domain).execute("cont") == {}
    domain.now = PAUSED
    with pytest.raises(QmpCommandError):
        client_of(domain).execute("cont")


def test_a_refusal_because_the_process_ended_is_its_end() -> None:
    def end(_: str) -> bytes:
        child.kill()
        child.wait()
        raise RefusedError("libvirt: no")

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        client = client_of(FakeDomain(end), child.pid)
        with pytest.raises(QmpHangupError):
            client.execute("query-status")


@pytest.mark.parametrize("command", ["cont", "stop", "query-status"])
def test_a_domain_whose_process_ended_is_told_nothing(command: str) -> None:
    """It may have been started anew meanwhile, and is the same one to libvirt."""
    domain = FakeDomain()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        client = client_of(domain, child.pid)
        child.kill()
        child.wait()
        with pytest.raises(QmpHangupError):
            client.execute(command)
    assert domain.told == []


def test_questions_that_were_not_put_as_one_before_failed_have_no_answer() -> None:
    def late(text: str) -> bytes:
        raise TimeoutExpiredError("no answer")

    client = client_of(FakeDomain(late))
    questions = [client.ask("query-status"), client.ask("query-cpus-fast")]
    with pytest.raises(TimeoutExpiredError):
        questions[0].result()
    for question in questions:
        with pytest.raises(DriverUnavailableError, match="libvirt was not asked any more"):
            question.result()


@pytest.mark.parametrize(
    ("after", "event"), [(PAUSED, ""), (PAUSED_BY_OTHERS, "STOP"), (RUNNING, "RESUME"), (DomainState(5, 0), "STOP")]
)
def test_what_happened_meanwhile_is_seen_in_libvirts_state(after: DomainState, event: str) -> None:
    domain = FakeDomain()
    client = client_of(domain)
    assert client.run_event == ""
    client.run_event = ""
    domain.now = after
    assert client.run_event == event


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b'{"return"',
        b'{"return": ' + b"[" * 9999 + b"]" * 9999 + b"}",
        b"\xff",
        b'{"return": "' + b"x" * LARGEST_MESSAGE + b'"}',
    ],
    ids=["empty", "a list", "cut", "deep", "no text", "long"],
)
def test_answers_that_are_none_are_refused(answer: bytes) -> None:
    with pytest.raises(QmpProtocolError):
        client_of(FakeDomain(lambda text: answer)).execute("query-status")


@pytest.mark.parametrize(
    ("threads", "told"),
    [([], True), ([os.getpid()], False), ([os.getpid(), 1], True), ([1 << 40], True), (["x"], True), ([None], True)],
)
def test_a_domain_is_the_process_that_has_its_vcpus(threads: list[Any], told: bool) -> None:
    answer = json.dumps({"return": [{"thread-id": thread} for thread in threads]}).encode()
    client = client_of(FakeDomain(lambda text: answer))
    if told:
        with pytest.raises((DriverUnavailableError, OSError)):
            client.check_process()
    else:
        client.check_process()
