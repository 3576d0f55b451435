# SPDX-License-Identifier: Apache-2.0
"""Every machine is told once: whichever workers end, come, answer late, or answer nonsense."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import pytest

from libmicrovmi_py.errors import DriverUnavailableError
from libmicrovmi_py.tools.scan.calls import Failed
from libmicrovmi_py.tools.scan.fleet import TRIES, Fleet, list_targets, scan_target, tell_place
from libmicrovmi_py.tools.scan.functions import Wanted
from libmicrovmi_py.tools.scan.job import ROOM, Job
from libmicrovmi_py.tools.scan.look import Place, Target

JOB = Job(Wanted("hashes", ()), "live", 1000, 60.0, "this scan")


def target(host: str, number: int, reason: str = "") -> Target:
    name = f"{host}-{number}"
    return Target(f"{host}/{number}", host, "qemu", name, f"vmi://qemu/?vm_name={name}", number, 1, "", reason)


class FakeCall:
    """A call that ends when the test's engine says so."""

    def __init__(self, worker: str, function: Callable[..., object], given: tuple[object, ...]) -> None:
        self.worker, self.function, self.given = worker, function, given
        self.answer: object = None
        self.cancelled = False

    def outcome(self) -> object:
        return self.answer

    def cancel(self) -> None:
        self.cancelled = True


class FakeEngine:
    """Workers by name, ``HOST:NUMBER``, each of one host; every step answers all calls that are under way.

    ``killers``: names of machines whose worker ends when it begins with them. ``late``: calls that end all the same,
    a step after their worker did.
    """

    def __init__(self, *workers: str, machines: int = 3, killers: frozenset[str] = frozenset()) -> None:
        self.alive = {worker: 1 for worker in workers}
        self.machines, self.killers = machines, killers
        self.under_way: list[FakeCall] = []
        self.late: list[FakeCall] = []
        self.handed_out: Counter[str] = Counter()
        self.answered: Callable[[FakeCall], object] = lambda call: json.dumps({"result": call.worker}).encode()

    def workers(self) -> Mapping[str, int]:
        return dict(self.alive)

    def call(self, worker: str, function: Callable[..., object], *given: object) -> FakeCall:
        self.under_way.append(FakeCall(worker, function, given))
        return self.under_way[-1]

    def done(self, seconds: float) -> Iterator[FakeCall]:
        yield from self.late
        calls, self.under_way, self.late = self.under_way, [], []
        for call in calls:
            if call.worker in self.alive:
                call.answer = self._answer(call)
            if call.worker in self.alive:
                yield call

    def _answer(self, call: FakeCall) -> object:
        host = call.worker.partition(":")[0]
        if call.function is tell_place:
            return [host, f"boot-of-{host}", 0]
        if call.function is list_targets:
            return [list(target(host, number)) for number in range(1, self.machines + 1)]
        assert call.function is scan_target
        name = Target(*call.given[0]).name  # type: ignore[misc]
        self.handed_out[name] += 1
        if name in self.killers:
            del self.alive[call.worker]
        return self.answered(call)


def scanned(engine: FakeEngine, patience: float = 0.0) -> tuple[list[dict[str, object]], list[str]]:
    notes: list[str] = []
    fleet = Fleet(engine, JOB, notes.append, patience)
    fleet.find()
    return list(fleet.run()), notes


def names(documents: list[dict[str, object]]) -> list[str]:
    return sorted(str(document["name"]) for document in documents)


def test_each_machine_is_scanned_by_a_worker_of_its_host() -> None:
    documents, notes = scanned(FakeEngine("a:1", "a:2", "b:1"))
    assert names(documents) == ["a-1", "a-2", "a-3", "b-1", "b-2", "b-3"]
    assert all(str(document["result"]).startswith(f"{document['host']}:") for document in documents)
    assert not notes


def test_the_machine_of_a_worker_that_ended_is_done_again_by_another_of_its_host() -> None:
    engine = FakeEngine("a:1", "a:2", "b:1")
    original = engine.answered

    def once(call: FakeCall) -> object:
        if call.worker == "a:1":
            engine.alive.pop("a:1")
        return original(call)

    engine.answered = once
    documents, _ = scanned(engine)
    assert names(documents) == ["a-1", "a-2", "a-3", "b-1", "b-2", "b-3"]
    assert {document["result"] for document in documents if document["host"] == "a"} == {"a:2"}
    assert engine.handed_out.total() == 7


def test_an_answer_that_comes_after_its_worker_was_given_up_is_not_told() -> None:
    engine = FakeEngine("a:1", "a:2", machines=1)

    def late(call: FakeCall) -> object:
        if engine.handed_out.total() == 1:
            del engine.alive[call.worker]
            engine.late.append(call)
        return json.dumps({"result": call.worker}).encode()

    engine.answered = late
    documents, _ = scanned(engine)
    assert names(documents) == ["a-1"]
    assert engine.handed_out.total() == 2


def test_a_machine_that_ends_its_workers_is_given_up_and_the_others_are_scanned() -> None:
    engine = FakeEngine(*(f"a:{number}" for number in range(5)), killers=frozenset({"a-2"}))
    documents, _ = scanned(engine)
    assert names(documents) == ["a-1", "a-2", "a-3"]
    errors = {str(document["name"]): str(document["error"]) for document in documents if "error" in document}
    assert errors == {"a-2": f"its worker ended ({TRIES} workers have)"}
    assert engine.handed_out["a-2"] == TRIES


def test_machines_of_a_host_without_a_worker_wait_for_one_and_no_longer_than_may_be() -> None:
    documents, _ = scanned(FakeEngine("a:1", "b:1", killers=frozenset({"a-1"})))
    errors = {str(document["name"]) for document in documents if "error" in document}
    assert names(documents) == ["a-1", "a-2", "a-3", "b-1", "b-2", "b-3"]
    assert errors == {"a-1", "a-2", "a-3"}


def test_a_worker_that_comes_later_takes_its_host_s_machines() -> None:
    engine = FakeEngine("a:1")
    original = engine.answered

    def replaced(call: FakeCall) -> object:
        if call.worker == "a:1":
            del engine.alive["a:1"]
            engine.alive["a:2"] = 1
        return original(call)

    engine.answered = replaced
    documents, _ = scanned(engine, patience=60)
    assert names(documents) == ["a-1", "a-2", "a-3"]
    assert {document["result"] for document in documents} == {"a:2"}


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "text",
        b"",
        b"[]",
        b"{",
        b"[" * 900,
        b'{"other": 1}',
        b'{"result": 1}' + b" " * (JOB.most + ROOM),
        Failed("RuntimeError: no"),
    ],
)
def test_what_is_no_answer_is_an_error_of_that_machine(answer: object) -> None:
    engine = FakeEngine("a:1", machines=2)
    engine.answered = lambda call: answer
    documents, _ = scanned(engine)
    assert names(documents) == ["a-1", "a-2"]
    assert all("error" in document and "\n" not in str(document["error"]) for document in documents)


class Liar(FakeEngine):
    """Workers of host ``a`` tell ``place`` and ``machines``; the others tell the truth."""

    place: object = None
    listed: object = None

    def _answer(self, call: FakeCall) -> object:
        if call.worker.startswith("a:"):
            if call.function is tell_place and self.place is not None:
                return self.place
            if call.function is list_targets and self.listed is not None:
                return self.listed
        return super()._answer(call)


@pytest.mark.parametrize("place", [{}, [1, 2, 3], ["a", "b"], ["a", "x" * 5000, 0], Failed("ImportError: no package")])
def test_a_worker_that_does_not_say_where_it_is_is_not_used(place: object) -> None:
    engine = Liar("a:1", "b:1")
    engine.place = place
    documents, notes = scanned(engine)
    assert names(documents) == ["b-1", "b-2", "b-3"]
    assert len(notes) == 1
    assert "a:1" in notes[0]


@pytest.mark.parametrize("listed", [{}, [1], [[1]], [["x"] * 9], [[]] * 70000])
def test_machines_that_are_none_are_a_line_and_no_more(listed: object) -> None:
    engine = Liar("a:1", "b:1")
    engine.listed = listed
    documents, notes = scanned(engine)
    assert names(documents) == ["b-1", "b-2", "b-3"]
    assert notes[-1] == "the machines of a are not known"
    assert len(notes) == TRIES + 1


def test_a_worker_that_ends_while_it_lists_has_another_of_its_host_list() -> None:
    class Ending(FakeEngine):
        def _answer(self, call: FakeCall) -> object:
            if call.function is list_targets and len(self.alive) > 1:
                del self.alive[call.worker]
            return super()._answer(call)

    documents, notes = scanned(Ending("a:1", "a:2"))
    assert names(documents) == ["a-1", "a-2", "a-3"]
    assert len(notes) == 1


def test_without_a_worker_that_can_be_used_there_is_an_error() -> None:
    engine = Liar("a:1")
    engine.place = {}
    with pytest.raises(DriverUnavailableError, match="no worker can be used"):
        scanned(engine)


def test_workers_of_one_host_with_different_rights_tell_a_machine_once() -> None:
    """The one that can read it scans it."""
    engine = Liar("a:1", "b:1", machines=1)
    engine.place = ["b", "boot-of-b", 1000]
    engine.listed = [list(target("b", 1, reason="may not be read"))]
    documents, _ = scanned(engine)
    assert [(document["name"], document["result"]) for document in documents] == [("b-1", "b:1")]


def test_a_machine_that_is_named_is_opened_by_any_worker() -> None:
    engine = FakeEngine("a:1")
    fleet = Fleet(engine, JOB, print)
    fleet.add("/images/one.raw")
    assert [(document["name"], document["result"]) for document in fleet.run()] == [("/images/one.raw", "a:1")]


def test_who_goes_away_in_the_middle_cancels_what_is_under_way() -> None:
    engine = FakeEngine("a:1", "a:2")
    fleet = Fleet(engine, JOB, print)
    fleet.find()
    documents = fleet.run()
    next(documents)
    fleet._hand_out()
    calls = list(engine.under_way)
    documents.close()
    assert calls
    assert all(call.cancelled for call in calls)


def test_places_with_the_same_name_are_different_hosts() -> None:
    assert Place("a", "boot-1", 0) != Place("a", "boot-2", 0)
