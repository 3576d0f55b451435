# SPDX-License-Identifier: Apache-2.0
"""Snapshots of every driver: the bytes, holes and registers of the machine, which is left as it was found."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, byref, c_char, c_uint64, sizeof, string_at
from types import ModuleType
from typing import Any

import pytest
from contract.calls import (
    INVALID_ARGUMENT,
    INVALID_CONTEXT,
    NOT_SUPPORTED,
    OK,
    READ_ONLY,
    answer_of,
    check,
    error_line,
    read,
    read_padded,
    refuses,
    runs,
    write,
)
from contract.known import Known
from contract.stock import failing
from contract.tables import Laid
from contract.target import Failing, Target
from contract.truth import PAGE, Truth

from libmicrovmi_py import CancelledError, Microvmi
from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.drivers.base import SupportsVcpuStates
from libmicrovmi_py.drivers.control import Phase, SupportsPause
from libmicrovmi_py.drivers.snapshot import SnapshotMethod
from libmicrovmi_py.errors import AccessError, NotMappedError, ReadOnlyError, TimeoutExpiredError
from libmicrovmi_py.model import DriverType

CANCELLED, TIMEOUT = 15, 9
FAILING = failing()


@pytest.fixture
def snapshot(machine: Microvmi, known: Known) -> Iterator[Microvmi | None]:
    """Of the machine, which is closed: nothing of it is needed. ``None``: it cannot be paused; see below."""
    if not known.can(SupportsPause):
        yield None
        return
    with machine.snapshot() as taken:
        machine.close()
        yield taken


def checked(lib: Any, context: int, truth: Truth) -> None:
    """Read everything through C: at its edges, as a whole, across what does not exist."""
    for edge in truth.edges():
        for address in (max(edge - 9, 0), edge):
            check(read(lib, context, address, 20), answer_of(truth.valid(address, 20), 20), f"{address:#x}")
            padded = answer_of(truth.padded(address, 20), 20)
            check(read_padded(lib, context, address, 20), padded, f"padded {address:#x}")
    for start, content in truth.spans:
        check(read(lib, context, start, len(content)), answer_of(content, len(content)), f"all at {start:#x}")


# --------------------------------------------------------------------------------------------------------- the content


def test_what_cannot_be_paused_is_refused(machine: Microvmi, known: Known) -> None:
    if known.can(SupportsPause):
        assert Ability.SNAPSHOT in machine.abilities.can
        return
    assert Ability.SNAPSHOT not in machine.abilities.can
    refuses(machine.driver.name, machine.snapshot)


def test_the_bytes_are_the_machine_s(lib: Any, context: int, truth: Truth, known: Known) -> None:
    error = POINTER(c_char)()
    taken = lib.microvmi_snapshot(context, None, byref(error))
    if not known.can(SupportsPause):
        assert (taken, lib.microvmi_last_error_code()) == (None, NOT_SUPPORTED)
        assert string_at(error).decode() == error_line(lib)
        lib.rs_cstring_free(error)
        return
    assert taken, lib.microvmi_last_error()
    assert not error
    assert (lib.microvmi_get_driver_name(taken), lib.microvmi_get_driver_type(taken)) == (b"snapshot", 7)
    checked(lib, taken, truth)
    assert write(lib, taken, truth.spans[0][0], b"1") == READ_ONLY
    lib.microvmi_destroy(taken)


def test_the_map_is_what_exists(snapshot: Microvmi | None, truth: Truth, known: Known) -> None:
    if snapshot is None:
        return
    assert Truth.of({item.start: bytes(item.size) for item in snapshot.memory_map()}).ranges == truth.ranges
    assert snapshot.max_addr == known.max_addr
    kinds = {address: item.kind for item in known.memory_map for address in range(item.start, item.end, PAGE)}
    for item in snapshot.memory_map():
        assert {kinds[address] for address in range(item.start, item.end, PAGE)} == {item.kind}


def test_nothing_is_written(snapshot: Microvmi | None, truth: Truth) -> None:
    if snapshot is None:
        return
    assert Ability.WRITE not in snapshot.abilities.can
    with pytest.raises(ReadOnlyError):
        snapshot.write_physical(truth.spans[0][0], b"1")


def test_zeros_take_no_memory(snapshot: Microvmi | None, truth: Truth) -> None:
    if snapshot is None:
        return
    pages = {
        (start + offset) // PAGE
        for start, content in truth.spans
        for offset in range(-(start % PAGE), len(content), PAGE)
        if any(content[max(offset, 0) : offset + PAGE])
    }
    assert snapshot.snapshot_info.data_bytes == len(pages) * PAGE


def test_streams_read_as_ever(snapshot: Microvmi | None, truth: Truth) -> None:
    if snapshot is None:
        return
    end = min(snapshot.max_addr, 1 << 20)
    assert snapshot.padded_memory.read(end) == truth.padded(0, end)
    start, content = truth.spans[0]
    snapshot.memory.seek(start)
    assert snapshot.memory.read(min(len(content), 70000)) == content[:70000]


def test_its_bytes_can_be_had_without_a_copy(snapshot: Microvmi | None, truth: Truth) -> None:
    if snapshot is None:
        return
    item = snapshot.memory_map()[0]
    assert Ability.MAP in snapshot.abilities.can
    view = snapshot.map_physical(item.start, item.size)
    assert view == truth.valid(item.start, item.size)
    assert view.readonly
    with pytest.raises(NotMappedError):
        snapshot.map_physical(truth.ranges[-1][1], 1)


def test_virtual_memory_is_the_machine_s(machine: Microvmi, known: Known, target: Target) -> None:
    if not known.can(SupportsPause):
        return
    tables, before = Laid.of(target.pieces), Truth.of(target.pieces)
    if target.writable:
        machine.write_physical(tables.start, tables.content)
    taken = machine.snapshot()
    if target.writable:
        machine.write_physical(tables.start, before.valid(tables.start, len(tables.content)))
    with taken:
        space = taken.address_space(tables.space.base, paging=tables.space.paging)
        assert list(space.mapped())
        for item in itertools.islice(space.mapped(), 50):
            assert space.translate(item.start).physical_address == tables.walk(item.start).physical
            wanted = tables.valid(item.start, 100)
            assert space.read_virtual(item.start, len(wanted)) == wanted


def test_registers_are_of_the_same_instant(machine: Microvmi, known: Known) -> None:
    if not known.can(SupportsPause):
        return
    machine.pause()
    with machine.snapshot() as taken:
        if not known.can(SupportsVcpuStates):
            refuses("snapshot", taken.read_states)
            return
        assert taken.read_states() == machine.read_states()
        assert taken.vcpu_count() == machine.vcpu_count()
        assert taken.driver.architecture is machine.driver.architecture


def test_c_tells_how_it_was_taken(lib: Any, stubs: ModuleType, context: int, known: Known) -> None:
    info = stubs.microvmi_snapshot_info(sizeof(stubs.microvmi_snapshot_info))
    assert not lib.microvmi_get_snapshot_info(context, byref(info))
    assert lib.microvmi_last_error_code() == NOT_SUPPORTED
    if not known.can(SupportsPause):
        return
    taken = lib.microvmi_snapshot(context, None, None)
    assert lib.microvmi_get_snapshot_info(taken, byref(info))
    ways = {SnapshotMethod.STATIC} if known.never_runs else {SnapshotMethod.PAUSED, SnapshotMethod.BACKGROUND}
    assert info.method in ways
    assert (info.stood_ns > 0) is (info.method != SnapshotMethod.STATIC)
    assert 1.7e18 < info.taken_at < 4e18
    assert info.data_bytes > 0
    lib.microvmi_destroy(taken)


def test_a_snapshot_of_a_snapshot_shares_it(snapshot: Microvmi | None, truth: Truth) -> None:
    if snapshot is None:
        return
    again = snapshot.snapshot()
    info, before = again.snapshot_info, snapshot.snapshot_info
    assert (info.method, info.stood, info.taken_at) == (SnapshotMethod.STATIC, 0.0, before.taken_at)
    snapshot.close()
    with again:
        for start, content in truth.spans:
            assert again.read_physical(start, len(content)) == content


# ---------------------------------------------------------------------------------------------- the machine afterwards


def test_a_machine_that_ran_runs(machine: Microvmi, known: Known, target: Target) -> None:
    if not known.can(SupportsPause) or known.never_runs:
        return
    machine.snapshot().close()
    machine.close()
    assert runs(target)


def test_a_machine_that_we_paused_stands(machine: Microvmi, known: Known) -> None:
    if not known.can(SupportsPause) or known.never_runs:
        return
    machine.pause()
    with machine.snapshot() as taken:
        assert taken.snapshot_info.stood == 0
    assert isinstance(machine.driver, SupportsPause)
    assert machine.driver.run_state().phase.name == "STOPPED"


def test_whoever_is_told_how_far_it_is_sees_the_end(machine: Microvmi, known: Known) -> None:
    if not known.can(SupportsPause):
        return
    told: list[tuple[int, int]] = []
    machine.snapshot(progress=lambda done, total: told.append((done, total))).close()
    assert all(0 <= done <= total for done, total in told)
    assert sorted(told) == told
    assert told[-1][0] == told[-1][1] > 0


def test_he_can_end_it(machine: Microvmi, known: Known, target: Target) -> None:
    if not known.can(SupportsPause):
        return
    with pytest.raises(CancelledError):
        machine.snapshot(progress=lambda done, total: False)
    machine.close()
    assert known.never_runs or runs(target)


def test_what_he_raises_comes_out(machine: Microvmi, known: Known, target: Target) -> None:
    if not known.can(SupportsPause):
        return
    with pytest.raises(ZeroDivisionError):
        machine.snapshot(progress=lambda done, total: 1 // 0)
    machine.close()
    assert known.never_runs or runs(target)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"max_bytes": PAGE}, 10),
        ({"flags": 2}, INVALID_ARGUMENT),
        ({"threads": 65}, INVALID_ARGUMENT),
        ({"struct_size": 8}, INVALID_ARGUMENT),
    ],
)
def test_what_cannot_be_is_one_line(
    lib: Any, stubs: ModuleType, context: int, known: Known, options: dict[str, int], code: int
) -> None:
    given = stubs.microvmi_snapshot_options(struct_size=sizeof(stubs.microvmi_snapshot_options))
    for name, value in options.items():
        setattr(given, name, value)
    assert lib.microvmi_snapshot(context, byref(given), None) is None
    expected = code if known.can(SupportsPause) or code == INVALID_ARGUMENT else NOT_SUPPORTED
    assert lib.microvmi_last_error_code() == expected
    assert error_line(lib)


def test_c_is_told_on_its_own_thread(lib: Any, stubs: ModuleType, context: int, known: Known, truth: Truth) -> None:
    told: list[tuple[int, int]] = []
    threads: set[int] = set()
    answer = True

    def progress(opaque: int, done: int, total: int) -> bool:
        size = c_uint64()
        assert lib.microvmi_get_max_physical_addr(context, byref(size))
        threads.add(threading.get_ident())
        told.append((done, total))
        return answer

    kind = dict(stubs.microvmi_snapshot_options._fields_)["progress"]
    options = stubs.microvmi_snapshot_options(sizeof(stubs.microvmi_snapshot_options), progress=kind(progress))
    for answer, code in ((True, OK), (False, CANCELLED)):
        told.clear()
        taken = lib.microvmi_snapshot(context, byref(options), None)
        if not known.can(SupportsPause):
            assert lib.microvmi_last_error_code() == NOT_SUPPORTED
            return
        assert lib.microvmi_last_error_code() == code
        assert (taken is not None) is answer
        assert told
        assert threads == {threading.get_ident()}
        lib.microvmi_destroy(taken)
    checked(lib, context, truth)


def test_destroying_the_context_meanwhile_ends_it(lib: Any, stubs: ModuleType, target: Target, known: Known) -> None:
    if not known.can(SupportsPause):
        return
    context = lib.microvmi_open(target.uri.encode(), None)
    destroying = threading.Thread(target=lib.microvmi_destroy, args=(context,))

    def progress(opaque: int, done: int, total: int) -> bool:
        if destroying.ident is None:
            destroying.start()
            time.sleep(0.3)
        return True

    kind = dict(stubs.microvmi_snapshot_options._fields_)["progress"]
    options = stubs.microvmi_snapshot_options(sizeof(stubs.microvmi_snapshot_options), progress=kind(progress))
    taken = lib.microvmi_snapshot(context, byref(options), None)
    code = lib.microvmi_last_error_code()
    destroying.join(30)
    assert not destroying.is_alive()
    assert taken or code in (INVALID_CONTEXT, CANCELLED)  # it may have been told of at the very end only
    lib.microvmi_destroy(taken)
    assert known.never_runs or runs(target)


def test_time_that_is_over_ends_it(machine: Microvmi, known: Known, target: Target) -> None:
    if not known.can(SupportsPause):
        return
    with pytest.raises(TimeoutExpiredError):
        machine.snapshot(timeout=0)
    machine.close()
    assert known.never_runs or runs(target)


# -------------------------------------------------------------------------------------------------------- that fails


@pytest.mark.parametrize("name", FAILING)
def test_a_frame_that_cannot_be_read_ends_it(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    with contextmanager(FAILING[name])(tmp_path_factory.mktemp("f")) as made:
        _fails_as_a_whole(made)


def _fails_as_a_whole(made: Failing) -> None:
    with Microvmi.open(made.uri) as machine:
        if made.unreadable is None or Ability.SNAPSHOT not in machine.abilities.can:
            return
        before = len(os.listdir("/proc/self/fd"))
        with made.failing(), pytest.raises(AccessError):
            machine.snapshot()
        assert len(os.listdir("/proc/self/fd")) <= before
        assert isinstance(machine.driver, SupportsPause)
        assert machine.driver.type is DriverType.DUMP or machine.driver.run_state().phase is Phase.RUNS
