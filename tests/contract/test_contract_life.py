# SPDX-License-Identifier: Apache-2.0
"""The life of contexts of every driver: wrong ones, several, threads, destroyed in use, opened again and again."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from ctypes import byref, c_uint8, c_uint64, c_void_p, sizeof
from types import ModuleType
from typing import Any

import pytest
from contract.calls import (
    INVALID_CONTEXT,
    NOT_MAPPED,
    OK,
    UNAVAILABLE,
    answer_of,
    buffer_of,
    check,
    error_line,
    read,
    within,
)
from contract.target import Target
from contract.truth import PAGE, Truth

from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import InvalidContextError

UNKNOWN = 0x7FFFFFFF


def calls_on(lib: Any, stubs: ModuleType, context: int | None) -> list[Callable[[], bool]]:
    """Every call of the API that takes a context and can fail."""
    buffer, size, number = buffer_of(16), 16, c_uint64()
    by_address = (lib.microvmi_read_physical, lib.microvmi_read_physical_padded)
    in_stream = (lib.microvmi_read, lib.microvmi_padded_read, lib.microvmi_write)
    return [
        *(lambda call=call: call(context, 0, buffer, size, byref(number)) for call in by_address),
        *(lambda call=call: call(context, buffer, size, byref(number)) for call in in_stream),
        lambda: lib.microvmi_write_physical(context, 0, buffer, size),
        *(lambda seek=seek: seek(context, 0, 0, None) for seek in (lib.microvmi_seek, lib.microvmi_padded_seek)),
        *(lambda tell=tell: tell(context, byref(number)) for tell in (lib.microvmi_tell, lib.microvmi_padded_tell)),
        lambda: lib.microvmi_read_physical_batch(context, (stubs.microvmi_read_request * 1)(), 1),
        lambda: lib.microvmi_get_max_physical_addr(context, byref(number)),
        lambda: lib.microvmi_read_registers(context, 0, byref(stubs.Registers())),
        lambda: lib.microvmi_write_registers(context, 0, byref(stubs.Registers())),
        lambda: lib.microvmi_set_page_access(context, 0, 7),
        lambda: lib.microvmi_listen(context, 0, byref(stubs.microvmi_event(struct_size=sizeof(stubs.microvmi_event)))),
        lambda: lib.microvmi_pause(context),
        lambda: lib.microvmi_resume(context),
    ]


def test_contexts_that_are_none_are_errors(lib: Any, stubs: ModuleType, target: Target) -> None:
    destroyed = lib.microvmi_open(target.uri.encode(), None)
    lib.microvmi_destroy(destroyed)
    again = lib.microvmi_open(target.uri.encode(), None)
    for context in (destroyed, None, 0x1234, destroyed ^ 1, (1 << 64) - 1):
        for call in calls_on(lib, stubs, context):
            assert not call()
            assert lib.microvmi_last_error_code() == INVALID_CONTEXT
            error_line(lib)
        assert lib.microvmi_get_driver_type(context) == UNKNOWN
        assert lib.microvmi_get_driver_name(context) is None
    lib.microvmi_destroy(destroyed)
    assert lib.microvmi_last_error_code() == INVALID_CONTEXT
    assert lib.microvmi_get_driver_name(again) is not None
    lib.microvmi_destroy(again)


def test_a_closed_machine_is_an_error_in_python(target: Target) -> None:
    machine = Microvmi.open(target.uri)
    machine.close()
    machine.close()
    calls: list[Callable[[], object]] = [
        lambda: machine.read_physical(0, 1),
        lambda: machine.write_physical(0, b"x"),
        lambda: machine.max_addr,
        machine.memory_map,
        machine.pause,
        machine.vcpu_count,
        machine.read_registers,
    ]
    for call in calls:
        with pytest.raises(InvalidContextError):
            call()


# ------------------------------------------------------------------------------------------------------------- threads


def together(count: int, work: Callable[[int], None]) -> None:
    """Run ``work(number)`` in threads, and raise what the first of them raised that failed."""
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as err:
            failures.append(err)

    threads = [threading.Thread(target=guarded, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if failures:
        raise failures[0]


def reads_of(truth: Truth, seed: int, count: int) -> list[tuple[int, int]]:
    """Addresses and sizes at random: within memory, across its edges, in holes."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        start, end = chance.choice(truth.ranges)
        address = chance.choice((chance.randrange(start, end), max(end - chance.randrange(PAGE), 0), end + PAGE))
        found.append((address, chance.choice((1, 8, 100, PAGE, chance.randrange(3 * PAGE)))))
    return found


def test_four_threads_read_every_byte_right_and_have_their_own_errors(lib: Any, context: int, truth: Truth) -> None:
    def work(number: int) -> None:
        for address, size in reads_of(truth, number, 500):
            expected = answer_of(truth.valid(address, size), size)
            check(read(lib, context, address, size), expected, f"thread {number}: {size:#x} at {address:#x}")
            text = lib.microvmi_last_error().decode()
            assert (f"{address + expected.done:#x}" in text) if expected.code == NOT_MAPPED else not text

    together(4, work)


def test_four_threads_read_in_python(machine: Microvmi, truth: Truth) -> None:
    def work(number: int) -> None:
        for address, size in reads_of(truth, number + 10, 300):
            buffer = bytearray(size)
            done = machine.read_physical_into(address, buffer)
            same = bytes(buffer[:done]) == truth.valid(address, size)
            assert same, f"thread {number}: {size:#x} at {address:#x}"

    together(4, work)


def test_threads_that_share_a_stream_get_every_byte_once(lib: Any, context: int, truth: Truth) -> None:
    start, end = truth.ranges[0]
    got: list[tuple[int, bytes]] = []
    assert lib.microvmi_seek(context, start, 0, None)

    def work(number: int) -> None:
        while True:
            buffer, count = buffer_of(1000 + number), c_uint64()
            if not lib.microvmi_read(context, buffer, len(buffer), byref(count)) or count.value == 0:
                return
            got.append((number, bytes(buffer[: count.value])))

    together(4, work)
    assert sum(len(content) for _, content in got) == end - start


@pytest.mark.parametrize("paused", [False, True])
def test_destroying_while_threads_read(lib: Any, target: Target, truth: Truth, paused: bool) -> None:
    context = lib.microvmi_open(target.uri.encode(), None)
    if paused:
        lib.microvmi_pause(context)
    begun = threading.Barrier(5)

    def work(number: int) -> None:
        if number == 4:
            begun.wait(10)
            time.sleep(0.02)
            lib.microvmi_destroy(context)
            assert lib.microvmi_last_error_code() == OK, lib.microvmi_last_error()
            return
        begun.wait(10)
        while True:
            for address, size in reads_of(truth, number, 50):
                got = read(lib, context, address, size)
                if got.code == INVALID_CONTEXT:
                    return
                check(got, answer_of(truth.valid(address, size), size), f"{size:#x} at {address:#x}")

    with within(10):
        together(5, work)


# ------------------------------------------------------------------------------------------------- several, and again


def held() -> tuple[int, int]:
    """How many descriptors and threads this process has."""
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def use(lib: Any, stubs: ModuleType, target: Target, truth: Truth) -> None:
    """Open, do a little of everything, destroy."""
    context = lib.microvmi_open(target.uri.encode(), None)
    assert context, lib.microvmi_last_error()
    address = truth.ranges[0][0]
    check(read(lib, context, address, 100), answer_of(truth.valid(address, 100), 100), "opened again")
    lib.microvmi_pause(context)
    lib.microvmi_read_registers(context, 0, byref(stubs.Registers()))
    lib.microvmi_destroy(context)


def test_opening_again_and_again_keeps_nothing(lib: Any, stubs: ModuleType, target: Target, truth: Truth) -> None:
    for _ in range(3):
        use(lib, stubs, target, truth)
    before = held()
    for _ in range(20):
        use(lib, stubs, target, truth)
    time.sleep(0.05)
    descriptors, threads = held()
    assert (descriptors, threads) <= before
    assert threads <= before[1]


def test_failed_openings_keep_nothing(lib: Any, target: Target) -> None:
    uri = target.uri if target.uri.startswith("vmi://") else f"vmi://dump/?path={target.uri}"
    bad = f"{uri}&colour=red".encode()
    assert lib.microvmi_open(bad, None) is None
    before = held()
    for _ in range(20):
        assert lib.microvmi_open(bad, None) is None
    assert held() <= before


def test_two_contexts_at_once_or_a_reason(lib: Any, context: int, target: Target, truth: Truth) -> None:
    """A hypervisor may serve one client only; the first then goes on unharmed."""
    address, size = truth.ranges[0][0], 100
    second = lib.microvmi_open(target.uri.encode(), None)
    if second is None:
        assert lib.microvmi_last_error_code() == UNAVAILABLE, lib.microvmi_last_error()
        error_line(lib)
    else:
        assert second != context
        assert lib.microvmi_seek(second, 5, 0, None)
        check(read(lib, second, address, size), answer_of(truth.valid(address, size), size), "the second")
    position = c_uint64(77)
    assert lib.microvmi_tell(context, byref(position))
    assert position.value == 0
    check(read(lib, context, address, size), answer_of(truth.valid(address, size), size), "the first, beside it")
    lib.microvmi_destroy(second)
    check(read(lib, context, address, size), answer_of(truth.valid(address, size), size), "the first, after it")


def test_a_context_as_any_ffi_hands_it_on(lib: Any, context: int, truth: Truth) -> None:
    address, buffer = truth.ranges[0][0], (c_uint8 * 8)()
    assert lib.microvmi_read_physical(c_void_p(context), address, buffer, 8, None)
    assert bytes(buffer) == truth.valid(address, 8)
