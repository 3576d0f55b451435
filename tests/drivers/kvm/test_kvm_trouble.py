# SPDX-License-Identifier: Apache-2.0
"""Peers that die, lie or fall silent: an error in time, never a hang, and closing works."""

from __future__ import annotations

import errno
import os
import random
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from drivers.kvm import wire
from drivers.kvm.library import library
from drivers.kvm.simulator import Simulator
from drivers.kvm.watching import until

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.control import STOPPED
from libmicrovmi_py.drivers.kvm import abi
from libmicrovmi_py.drivers.kvm.machine import acquire, release
from libmicrovmi_py.errors import (
    AccessError,
    InvalidContextError,
    IoError,
    MicrovmiError,
    TimeoutExpiredError,
    VmGoneError,
)
from libmicrovmi_py.events import EventKind, Intercept
from libmicrovmi_py.transport.foreign import load


def gone(machine: Microvmi) -> None:
    """Every call says at once that the machine is gone, and closing works."""
    started = time.monotonic()
    calls: list[Callable[[], object]] = [
        lambda: machine.read_physical(0, 8),
        lambda: machine.write_physical(0, b"x"),
        machine.vcpu_count,
        machine.read_registers,
        machine.pause,
        lambda: machine.listen(5),
        lambda: machine.toggle_intercept(Intercept(EventKind.BREAKPOINT)),
    ]
    for call in calls:
        with pytest.raises(VmGoneError):
            call()
    machine.close()
    assert time.monotonic() - started < 4


# ----------------------------------------------------------------------------------------------------------------- ends


def test_a_machine_that_ended_is_gone(machine: Microvmi, simulator: Simulator) -> None:
    machine.read_physical(0, 8)
    simulator.stop()
    gone(machine)


def test_a_machine_that_ends_in_the_middle_of_an_answer(machine: Microvmi, simulator: Simulator) -> None:
    def half(command: int, seq: int, body: bytes) -> bytes | None:
        if command != wire.READ_PHYSICAL or wire.RANGE.unpack(body)[0] < 0x2000:
            return None
        simulator.ended = True
        simulator.send_raw(wire.HEADER.pack(command, 8 + 4096, seq) + bytes(100))
        raise ConnectionError

    simulator.meddle = half
    buffer = bytearray(0x3000)
    with pytest.raises(AccessError) as caught:
        machine.read_physical_into(0x1000, buffer)
    assert isinstance(caught.value, VmGoneError)
    assert (caught.value.address, caught.value.completed, caught.value.requested) == (0x2000, 0x1000, 0x3000)
    gone(machine)


def test_a_machine_that_ends_while_it_is_listened_to(machine: Microvmi, simulator: Simulator) -> None:
    machine.toggle_intercept(Intercept(EventKind.CR, 3))
    threading.Timer(0.1, simulator.stop).start()
    started = time.monotonic()
    with pytest.raises(VmGoneError):
        machine.listen(10)
    assert time.monotonic() - started < 4
    gone(machine)


def test_an_event_that_came_before_the_end_is_still_told(machine: Microvmi, simulator: Simulator) -> None:
    machine.toggle_intercept(Intercept(EventKind.CR, 3))
    simulator.vcpus[0].write_cr(3, 1)
    while not simulator.vcpus[0].stopped.is_set():
        time.sleep(0.001)
    machine.read_physical(0, 8)
    simulator.stop()
    event = machine.listen(1)
    assert event is not None
    with pytest.raises(VmGoneError):
        machine.reply_event(event)
    gone(machine)


def test_a_paused_machine_that_ended(machine: Microvmi, simulator: Simulator) -> None:
    machine.pause()
    simulator.stop()
    with pytest.raises(VmGoneError):
        machine.resume()
    machine.close()


def test_threads_that_read_a_machine_that_ends(machine: Microvmi, simulator: Simulator) -> None:
    errors: list[MicrovmiError] = []

    def read() -> None:
        try:
            while True:
                machine.read_physical(0x1FF0, 64)
        except MicrovmiError as err:
            errors.append(err)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    simulator.stop()
    for thread in threads:
        thread.join(5)
    assert [type(error) for error in errors] == [VmGoneError] * 4
    gone(machine)


# ------------------------------------------------------------------------------------------------------------- nonsense


def reply(command: int, seq: int, body: bytes) -> bytes:
    return wire.HEADER.pack(command, len(body), seq) + body


NONSENSE = {
    "another number": lambda command, seq: reply(command, seq + 1, bytes(16)),
    "another command": lambda command, seq: reply(command + 1, seq, bytes(16)),
    "no result": lambda command, seq: reply(command, seq, b"abc"),
    "an unknown event": lambda command, seq: reply(wire.EVENT, 1, wire.EVENT_HEAD.pack(16, 0, 12, 8)),
    "an event of more than a message": lambda command, seq: wire.HEADER.pack(wire.EVENT, 0xFFFF, 1) + bytes(100),
    "an event larger than itself": lambda command, seq: reply(wire.EVENT, 1, wire.EVENT_HEAD.pack(999, 0, 1, 8)),
    "an event smaller than its head": lambda command, seq: reply(wire.EVENT, 1, wire.EVENT_HEAD.pack(3, 0, 1, 8)),
    "noise": lambda command, seq: random.Random(seq).randbytes(300),
}


@pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=NONSENSE)
def test_an_answer_that_makes_no_sense_is_an_error_and_the_end(
    machine: Microvmi, simulator: Simulator, nonsense: Callable[[int, int], bytes]
) -> None:
    simulator.meddle = lambda command, seq, body: nonsense(command, seq)
    started = time.monotonic()
    with pytest.raises(AccessError):
        machine.read_physical(0, 8)
    for _ in range(3):
        with pytest.raises((IoError, VmGoneError)):
            machine.vcpu_count()
    machine.close()
    assert time.monotonic() - started < 3


def test_an_event_that_makes_no_sense_ends_the_listening(machine: Microvmi, simulator: Simulator) -> None:
    simulator.send_raw(reply(wire.EVENT, 1, wire.EVENT_HEAD.pack(16, 0, 12, 8)))
    with pytest.raises(IoError, match="makes no sense"):
        machine.listen(5)
    gone(machine)


def test_an_answer_without_a_question_ends_the_listening(machine: Microvmi, simulator: Simulator) -> None:
    simulator.send(wire.READ_PHYSICAL, 1, bytes(16))
    with pytest.raises(IoError, match="makes no sense"):
        machine.listen(5)
    gone(machine)


def test_an_event_that_nobody_asked_for_is_answered(machine: Microvmi, simulator: Simulator) -> None:
    for kind in (9, 5, 3):  # a new vCPU, a hypercall, a write of XCR0: all take a plain CONTINUE
        future = simulator.vcpus[0]._tell(simulator.vcpus[0].event, kind)
        assert machine.listen(0.1) is None
        assert future.result(5) == (wire.CONTINUE, b"")


def test_registers_of_another_size_than_asked_for(machine: Microvmi, simulator: Simulator) -> None:
    def short(command: int, seq: int, body: bytes) -> bytes | None:
        return reply(command, seq, bytes(100)) if command == wire.GET_REGISTERS else None

    simulator.meddle = short
    with pytest.raises(IoError, match="makes no sense"):
        machine.read_registers()
    gone(machine)


# -------------------------------------------------------------------------------------------------------------- silence


def test_a_hypervisor_that_falls_silent_is_given_up(
    simulator: Simulator, reach: Callable[..., Microvmi], tmp_path: Path
) -> None:
    machine = reach(library=library(tmp_path, "-DLIMIT_MS=300"))
    simulator.meddle = lambda command, seq, body: b""
    started = time.monotonic()
    with pytest.raises(TimeoutExpiredError, match="no answer"):
        machine.read_physical(0, 8)
    assert 0.3 <= time.monotonic() - started < 4
    simulator.meddle = lambda command, seq, body: None
    gone(machine)


def test_closing_takes_the_connection_from_a_call_that_waits(machine: Microvmi, simulator: Simulator) -> None:
    simulator.meddle = lambda command, seq, body: b""
    errors: list[MicrovmiError] = []

    def read() -> None:
        try:
            machine.driver.vcpu_count()  # type: ignore[attr-defined]
        except MicrovmiError as err:
            errors.append(err)

    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.1)
    started = time.monotonic()
    machine.close()
    thread.join(5)
    assert time.monotonic() - started < 2
    assert [type(error) for error in errors] == [InvalidContextError]


def test_no_call_begins_while_the_connection_is_being_closed(
    simulator: Simulator, libkvmi: str, socket_path: str
) -> None:
    """It would use what libkvmi frees."""
    machine = acquire(load((libkvmi,), abi.DECLARATIONS), socket_path, None, 5)
    domain, hanging = machine.domain, threading.Event()
    simulator.meddle = lambda command, seq, body: hanging.set() or b""  # type: ignore[func-returns-value]

    def count() -> int:
        return domain.attempt("kvmi_get_vcpu_count", domain.ffi.new("unsigned int *"))

    threads = [threading.Thread(target=count), threading.Thread(target=release, args=(machine,))]
    threads[0].start()
    assert hanging.wait(10)
    threads[1].start()  # waits for the call that hangs
    until(lambda: isinstance(domain.failure(errno.EBUSY, "a call"), InvalidContextError))
    with pytest.raises(InvalidContextError):
        count()
    for thread in threads:
        thread.join(10)


# ----------------------------------------------------------------------------------------------------------------- fork


def test_a_child_that_closes_the_machine_leaves_it_to_its_parent(machine: Microvmi, simulator: Simulator) -> None:
    machine.pause()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        machine.close()
        os._exit(0)
    assert os.waitpid(child, 0) == (child, 0)
    assert machine.driver.run_state() == STOPPED  # type: ignore[attr-defined]
    assert machine.read_physical(0x2000, 8) == bytes(simulator.frames[2][:8])
