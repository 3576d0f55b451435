# SPDX-License-Identifier: Apache-2.0
"""The whole object: run state and who owns it, closing, what a driver cannot do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from processors import x86_registers

from libmicrovmi_py import DriverType, InvalidArgumentError, InvalidContextError, MemoryRange, Microvmi
from libmicrovmi_py.arch.state import VcpuState
from libmicrovmi_py.drivers.fake import FakeDriver
from libmicrovmi_py.errors import TimeoutExpiredError
from libmicrovmi_py.model import PAGE_SIZE, Architecture

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver({0: bytearray(PAGE_SIZE)}, states=[VcpuState(Architecture.X86, {"rip": rip}) for rip in (1, 2)])


def test_the_whole_holds_its_parts(driver: FakeDriver) -> None:
    machine = Microvmi.from_driver(driver)
    assert machine.driver is driver
    assert machine.driver_type is DriverType.PLUGIN
    assert machine.memory.tell() == machine.padded_memory.tell() == 0
    assert machine.memory_map() == (MemoryRange(0, PAGE_SIZE),)


def test_close_resumes_what_this_object_paused(driver: FakeDriver) -> None:
    with Microvmi.from_driver(driver) as machine:
        machine.pause()
        machine.pause()
        assert not driver.running
    assert driver.running


def test_close_leaves_a_machine_stopped_that_was_stopped_before(driver: FakeDriver) -> None:
    driver.running = False
    with Microvmi.from_driver(driver) as machine:
        machine.pause()
    assert not driver.running


def test_an_explicit_resume_ends_the_ownership(driver: FakeDriver) -> None:
    with Microvmi.from_driver(driver) as machine:
        machine.pause()
        machine.resume()
        assert driver.running
        driver.running = False
    assert not driver.running


def test_closing_twice_is_fine_and_using_a_closed_machine_is_not(driver: FakeDriver) -> None:
    machine = Microvmi.from_driver(driver)
    machine.close()
    machine.close()
    uses: list[Callable[[], object]] = [
        machine.pause,
        machine.resume,
        machine.memory_map,
        machine.vcpu_count,
        machine.read_registers,
        machine.read_state,
        machine.read_states,
        lambda: machine.write_state({}),
        lambda: machine.max_addr,
        lambda: machine.read_physical(0, 1),
        lambda: machine.read_physical_into(0, bytearray(1)),
        lambda: machine.read_physical_padded_into(0, bytearray(1)),
        lambda: machine.write_physical(0, b"x"),
    ]
    for use in uses:
        with pytest.raises(InvalidContextError):
            use()
    assert machine.memory.closed
    assert machine.padded_memory.closed


class Stubborn(FakeDriver):
    """It does not answer a resume; ``closed`` tells that it was released all the same."""

    closed = False

    def run(self, *, whoever: bool) -> None:
        raise TimeoutExpiredError("no answer")

    def close(self) -> None:
        self.closed = True


def test_a_resume_that_fails_at_close_is_told_after_everything_was_released() -> None:
    driver = Stubborn({0: bytearray(PAGE_SIZE)})
    machine = Microvmi.from_driver(driver)
    machine.pause()
    with pytest.raises(TimeoutExpiredError):
        machine.close()
    assert driver.closed
    assert machine.memory.closed


def test_vcpus_are_counted_from_0(driver: FakeDriver) -> None:
    machine = Microvmi.from_driver(driver)
    assert x86_registers(machine, 1).rip == 2
    for vcpu in (-1, 2):
        with pytest.raises(InvalidArgumentError, match=f"no vCPU {vcpu}: the machine has 2"):
            x86_registers(machine, vcpu)


EXIT = """
import sys
sys.path.append({root!r})
from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.fake import FakeDriver

class Loud(FakeDriver):
    def run(self, *, whoever):
        print("resumed", flush=True)

machine = Microvmi.from_driver(Loud({{0: bytearray(4096)}}))
machine.pause()
del machine
{then}
"""


@pytest.mark.parametrize(
    ("then", "output"),
    [
        ("", "resumed\n"),
        ("sys.exit(3)", "resumed\n"),
        ("raise ValueError", "resumed\n"),
        ("import os\nif os.fork() == 0: sys.exit()\nos.wait(); os._exit(0)", ""),
    ],
    ids=["end", "exit", "exception", "child"],
)
def test_the_end_of_the_process_resumes_but_not_that_of_a_child(then: str, output: str) -> None:
    code = EXIT.format(root=str(ROOT), then=then)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == output


def test_a_stream_of_the_caller_s_own_is_opened_and_closed_as_often_as_he_likes(driver: FakeDriver) -> None:
    with Microvmi.from_driver(driver) as machine:
        machine.padded_memory.seek(7)
        for _ in range(2):
            with machine.open_memory(padded=True) as stream:
                assert (stream.tell(), stream.read(4), stream.writable()) == (0, bytes(4), False)
        plain, other = machine.open_memory(), machine.open_memory()
        assert plain.write(b"abc") == 3
        assert (other.read(3), plain.tell(), machine.memory.tell()) == (b"abc", 3, 0)
        assert machine.padded_memory.tell() == 7


def test_streams_of_the_caller_s_own_are_closed_with_the_machine(driver: FakeDriver) -> None:
    machine = Microvmi.from_driver(driver)
    closed, stream = machine.open_memory(), machine.open_memory(padded=True)
    closed.close()
    machine.close()
    with pytest.raises(ValueError, match="closed"):
        stream.read(1)
    with pytest.raises(InvalidContextError):
        machine.open_memory()
