# SPDX-License-Identifier: Apache-2.0
"""``microvmi events`` on a machine that does everything: what is told of which kind, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from command.running import MICROVMI, SECONDS, environment, one_line, piped

VM = "vmi://fake/?vcpus=2"


def documents(*words: str) -> list[dict[str, object]]:
    """What --json prints, a document a line."""
    done = piped("events", VM, "--no-symbols", *words, "--json")
    assert (done.code, done.err) == (0, ""), done
    return [json.loads(line) for line in done.out.splitlines()]


def test_each_kind_is_told_with_what_is_known_of_it() -> None:
    words = ("--cr3", "--cr", "4", "--msr", "sysenter_esp", "--int3", "--breakpoint", "0x7cc0", "--vcpu", "1")
    found = documents(*words, "--count", "8")
    assert {told["vcpu"] for told in found} == {1}
    kinds = {(told["event"], told.get("number"), told.get("address")) for told in found}
    assert {("cr", 3, None), ("cr", 4, None), ("msr", "0x175", None), ("breakpoint", None, "0x7cc0")} <= kinds
    assert len({address for kind, _, address in kinds if kind == "breakpoint"}) == 2


def test_an_access_to_memory_is_told_with_how_and_by_whom() -> None:
    found = documents("--watch", "0x3000:4", "--access", "rw", "--count", "4")
    assert {told["event"] for told in found} == {"virtual_access"}
    assert {told["access"] for told in found} <= {"r", "w", "rw"}
    assert all(int(str(told["address"]), 16) in range(0x3000, 0x3004) for told in found)
    assert all("instruction" in told for told in found)


@pytest.mark.parametrize(("way", "vcpu"), [((), 0), (("--every",), 0), (("--observe",), None)])
def test_cr3_is_told_in_three_ways(way: tuple[str, ...], vcpu: int | None) -> None:
    found = documents(*way, "--count", "2")
    assert [(told["event"], told["number"]) for told in found] == [("cr", 3), ("cr", 3)]
    assert found[0]["vcpu"] == vcpu


def test_it_ends_after_a_time() -> None:
    start = time.monotonic()
    assert documents("--step", "--for", "0.3")
    assert time.monotonic() - start >= 0.3


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--access", "rwq"), 2, "is not made of r, w and x"),
        (("--msr", "nosuch"), 2, "is not the index of an MSR, nor one of apic_base"),
        (("--cr", "7"), 2, "invalid choice"),
        (("--every", "--observe"), 2, "not allowed with"),
        (("--vcpu", "65535"), 2, "is not the number of a vCPU"),
        (("--vcpu", "9"), 1, "no vCPU 9"),
        (("--breakpoint", "schedule", "--no-symbols"), 1, "schedule is no address, and there are no symbols: --no-sym"),
        (("--watch", "0x1000:all"), 1, "'all' is not a size"),
        (("--watch", "0x1000:0"), 1, "0"),
    ],
)
def test_what_makes_no_sense_is_one_line(words: tuple[str, ...], code: int, says: str) -> None:
    done = piped("events", VM, *words)
    assert (done.code, done.out) == (code, ""), done
    assert says in one_line(done.err.splitlines(keepends=True)[-1])


@pytest.fixture
def reader() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe, ours first."""
    ours, its = os.pipe()
    yield ours, its
    for number in (ours, its):
        with suppress(OSError):
            os.close(number)


@pytest.mark.parametrize("words", [(), ("--breakpoint", "0x1234", "--vcpu", "1")], ids=["many", "few"])
def test_it_ends_when_its_reader_does(reader: tuple[int, int], words: tuple[str, ...]) -> None:
    ours, its = reader
    command = [*MICROVMI, "events", VM, *words]
    with subprocess.Popen(command, env=environment(), stdout=its, stderr=subprocess.PIPE) as process:
        os.close(its)
        os.read(ours, 1)
        os.close(ours)
        assert process.wait(SECONDS) == -signal.SIGPIPE
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()


def test_it_ends_when_its_reader_does_though_nothing_happens(reader: tuple[int, int]) -> None:
    ours, its = reader
    command = [*MICROVMI, "events", "vmi://watched/?path=/dev/null&stopped=yes"]
    with subprocess.Popen(command, env=environment(), stdout=its, stderr=subprocess.PIPE) as process:
        os.close(its)
        assert process.stderr is not None
        while b"the machine is paused" not in process.stderr.readline():
            assert process.poll() is None
        os.close(ours)
        assert process.wait(SECONDS) == -signal.SIGPIPE


def test_a_signal_ends_it_between_two_events_and_not_within_one() -> None:
    """Many times, at other moments: what an answer was interrupted in would be told on standard error."""
    command = [*MICROVMI, "events", VM, "--no-symbols", "--step"]
    for turn in range(5):
        with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.read(100 + 1777 * turn)
            process.send_signal(signal.SIGTERM)
            rest, told = process.communicate(timeout=SECONDS)
        assert (process.returncode, told) == (-signal.SIGTERM, b"")
        assert rest.endswith(b"\n") or not rest
