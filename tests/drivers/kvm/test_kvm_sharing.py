# SPDX-License-Identifier: Apache-2.0
"""Several contexts and machines at once, and opening again and again."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest
from contract.stands import kvm as stand
from drivers.kvm import wire
from drivers.kvm.simulator import Simulator
from drivers.kvm.watching import held, no_more_than, until

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.control import STOPPED
from libmicrovmi_py.errors import (
    DriverUnavailableError,
    VmGoneError,
)
from libmicrovmi_py.events import EventKind, Intercept, PageAccess

Reach = Callable[..., Microvmi]


# ------------------------------------------------------------------------------------------------------- several, again


def test_contexts_of_one_process_share_a_machine(reach: Reach, simulator: Simulator) -> None:
    first, second = reach(), reach()
    first.pause()
    assert second.driver.run_state() == STOPPED  # type: ignore[attr-defined]
    second.write_physical(0x1000, b"shared")
    second.close()
    assert first.read_physical(0x1000, 6) == b"shared"
    assert first.driver.run_state() == STOPPED  # type: ignore[attr-defined]
    third = reach()
    first.close()
    simulator.vcpus[0].step().result(5)
    assert third.read_physical(0x1000, 6) == b"shared"
    assert simulator.seen.count(wire.GET_VERSION) == 1
    third.close()
    reach()
    assert simulator.seen.count(wire.GET_VERSION) == 2


def test_one_context_listens(reach: Reach, simulator: Simulator) -> None:
    first, second = reach(), reach()
    first.toggle_intercept(Intercept(EventKind.CR, 3))
    write = simulator.vcpus[0].write_cr(3, 7)
    event = first.listen(5)
    assert event is not None
    with pytest.raises(DriverUnavailableError, match="another context"):
        second.toggle_intercept(Intercept(EventKind.CR, 4))
    with pytest.raises(DriverUnavailableError, match="another context"):
        second.listen(0)
    first.set_page_access(0x4000, PageAccess.READ)
    second.set_page_access(0x5000, PageAccess.READ)
    assert first.get_page_access(0x5000) == PageAccess.READ
    second.close()
    assert simulator.accesses == {4: PageAccess.READ, 5: PageAccess.ALL}
    assert not write.done()
    third = reach()
    first.close()
    assert write.result(5) == 7
    third.toggle_intercept(Intercept(EventKind.CR, 4))


def test_threads_that_open_a_machine_at_once_share_it(reach: Reach, socket_path: str, pieces: dict[int, bytes]) -> None:
    contents: list[bytes] = []
    threads = [threading.Thread(target=lambda: contents.append(reach().read_physical(0, 8))) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    simulator = Simulator(socket_path, pieces).start()
    for thread in threads:
        thread.join(10)
    assert contents == [pieces[0][:8]] * 4
    assert simulator.seen.count(wire.GET_VERSION) == 1
    simulator.stop()


def test_a_machine_that_starts_anew_is_opened_beside_the_dead_one(
    reach: Reach, socket_path: str, simulator: Simulator
) -> None:
    first = reach()
    simulator.stop()
    fresh = Simulator(socket_path, {0: b"anew" * 1024}).start()
    assert reach().read_physical(0, 4) == b"anew"
    with pytest.raises(VmGoneError):
        first.read_physical(0, 4)
    fresh.stop()


def test_two_machines_at_two_sockets(reach: Reach, simulator: Simulator, tmp_path: Path) -> None:
    other = Simulator(str(tmp_path / "other"), {0: b"other   " * 512}).start()
    first, second = reach(), reach(kvm_unix_socket=str(tmp_path / "other"))
    assert second.read_physical(0, 8) == b"other   "
    second.close()
    assert first.read_physical(0, 8) == bytes(simulator.frames[0][:8])
    other.stop()


def test_no_thread_of_libkvmi_stays_and_nobody_else_can_connect(
    reach: Reach, simulator: Simulator, socket_path: str
) -> None:
    before = held()
    reach()
    assert held()[1] <= before[1]
    assert not os.path.exists(socket_path)


def test_opening_fifty_times_keeps_nothing(tmp_path: Path) -> None:
    with contextmanager(stand.stand)(tmp_path) as target:
        for round_ in range(51):
            if round_ == 1:
                before = held()
            with Microvmi.open(target.uri) as machine:
                machine.pause()
                assert machine.read_physical(0xFFC, 8) == target.pieces[0][0xFFC:0x1004]
        until(lambda: no_more_than(before))
