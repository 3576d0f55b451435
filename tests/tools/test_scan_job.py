# SPDX-License-Identifier: Apache-2.0
"""What comes of one machine is bounded, and an error of its function is a line."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libmicrovmi_py.errors import InvalidArgumentError, IoError
from libmicrovmi_py.tools.scan import look
from libmicrovmi_py.tools.scan.functions import wanted
from libmicrovmi_py.tools.scan.job import Job, bounded, run
from libmicrovmi_py.tools.scan.look import Target

SOURCE = """
import itertools
def size(machine, *words): return [machine.max_addr, *words]
def endless(machine): return ({"at": at} for at in itertools.count())
def large(machine): return "x" * 5000
def content(machine): return {"first": machine.read_physical(0, 2)}
def wrong(machine): return object()
def failing(machine): raise RuntimeError("no\\nluck")
def reading(machine): machine.read_physical(1 << 40, 1)
def ending(machine, scan):
    from libmicrovmi_py.tools.scan import job
    job.end(scan)
    return machine.max_addr
"""


@pytest.fixture
def image(tmp_path: Path) -> Target:
    path = tmp_path / "image.raw"
    path.write_bytes(b"\x4d\x5a" + bytes(4094))
    return look.named(str(path))


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return str(path)


def answer(target: Target, name: str, *words: str, most: int = 1000, limit: float = 60.0) -> dict[str, Any]:
    found = json.loads(run(target, Job(wanted(name, words), "live", most, limit)))
    assert isinstance(found, dict)
    assert found.pop("seconds") >= 0
    return found


def test_a_function_of_the_user_s_own_gets_the_machine_and_the_words(image: Target, source: str) -> None:
    assert answer(image, f"{source}:size", "a", "--b") == {"result": [4096, "a", "--b"]}
    assert answer(image, f"{source}:content") == {"result": {"first": "4d5a"}}


def test_items_are_taken_until_there_are_more_than_may_be(image: Target, source: str) -> None:
    found = answer(image, f"{source}:endless")
    assert found["more"] is True
    assert 10 < len(found["result"]) < 100


def test_a_function_that_yields_is_left_when_its_time_is_over() -> None:
    def slow() -> Iterator[int]:
        for number in itertools.count():
            time.sleep(0.01)
            yield number

    found = bounded(slow(), 1 << 20, time.monotonic() + 0.1)
    assert found["more"] is True
    assert len(found["result"]) < 11


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("large", "the result takes more than 1000 bytes: --most allows more"),
        ("wrong", "the result of the function is nothing that JSON can say: a object"),
        ("failing", "the function raised RuntimeError: no\\nluck"),
        ("reading", "0x10000000000"),
        ("absent", "mine.py has no function absent"),
    ],
)
def test_what_goes_wrong_is_one_line(image: Target, source: str, function: str, told: str) -> None:
    found = answer(image, f"{source}:{function}")
    assert told in found["error"]
    assert "\n" not in found["error"]


@pytest.mark.parametrize("value", [float("nan"), {1: object()}, [[object()]]])
def test_what_json_cannot_say_is_an_error(value: object) -> None:
    with pytest.raises(IoError, match="JSON can say"):
        bounded(value, 1000)


def test_a_machine_that_cannot_be_read_is_told_with_its_reason(image: Target) -> None:
    assert answer(image._replace(reason="libvirt holds it"), "hashes") == {"error": "libvirt holds it"}
    assert "ended" in answer(image._replace(process_id=1, started=1), "hashes")["error"]


def test_a_module_is_looked_for_where_the_machines_are(image: Target) -> None:
    assert "no-such" in answer(image, "no-such:function")["error"]
    assert answer(image, "os.path:basename") == {"error": answer(image, "os.path:basename")["error"]}


@pytest.mark.parametrize("name", ["nothing", "mine.py", ":function", "mine.py:", "mine.py:a b", "/nowhere/mine.py:f"])
def test_what_names_no_function_is_refused_before_anything_is_opened(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"no function|cannot be used"):
        wanted(name, ())


def test_a_file_that_is_no_program_is_refused_at_once(tmp_path: Path) -> None:
    for content in (b"def f(:\n", b"\xff", b"x" * (1 << 21)):
        path = tmp_path / "mine.py"
        path.write_bytes(content)
        with pytest.raises(InvalidArgumentError, match=r"mine\.py"):
            wanted(f"{path}:f", ())


def test_a_scan_that_is_ended_has_its_machines_closed_and_opens_no_more(image: Target, source: str) -> None:
    """Those of another scan stay open."""
    held = Job(wanted(f"{source}:ending", ["this"]), "live", 1000, 60.0, "this")
    assert "closed" in json.loads(run(image, held))["error"]
    assert json.loads(run(image, held))["error"] == "the scan was ended"
    other = Job(wanted(f"{source}:ending", ["another"]), "live", 1000, 60.0, "other")
    assert json.loads(run(image, other))["result"] == 4096


def test_a_plugin_is_run_by_a_program_of_its_own_whose_last_line_is_the_reason(image: Target) -> None:
    """Here volatility is not there, or finds no Linux guest in the image."""
    found = answer(image, "vol", "linux.pslist.PsList")
    assert "\n" not in found["error"]
    assert "volatility" in found["error"] or "Unsatisfied" in found["error"], found
    assert answer(image, "vol")["error"] == "vol: which plugin? linux.pslist.PsList, for example"
    assert answer(image, "vol", "linux.pslist.PsList", limit=0.01)["error"] == "the plugin did not end within 0.01 s"
