# SPDX-License-Identifier: Apache-2.0
"""Calls of the C API, with everything that they tell."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from ctypes import byref, c_uint8, c_uint64
from typing import Any, NamedTuple

import pytest
from contract.target import Target

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.control import Phase, SupportsPause
from libmicrovmi_py.errors import NotSupportedError

OK, INVALID_ARGUMENT, INVALID_CONTEXT, UNAVAILABLE, NOT_SUPPORTED, NOT_MAPPED = 0, 1, 2, 4, 5, 6
IO, READ_ONLY, INTERNAL = 10, 11, 14

UNTOUCHED = b"\xee"
"""What buffers hold before a call."""


class Answer(NamedTuple):
    """What a read returned: its result, the count, the whole buffer, the thread's error code."""

    ok: bool
    done: int
    content: bytes
    code: int


def buffer_of(size: int) -> Any:
    """A buffer of ``size`` untouched bytes."""
    return (c_uint8 * size).from_buffer(bytearray(UNTOUCHED) * size) if size else (c_uint8 * 0)()


def answer(lib: Any, call: Callable[..., bool], *arguments: Any, size: int) -> Answer:
    """Call a function that takes a buffer, its size and a place for the count last."""
    buffer, count = buffer_of(size), c_uint64(77)
    done = call(*arguments, buffer, size, byref(count))
    return Answer(done, count.value, bytes(buffer), lib.microvmi_last_error_code())


def read(lib: Any, context: int, address: int, size: int) -> Answer:
    """``microvmi_read_physical``."""
    return answer(lib, lib.microvmi_read_physical, context, address, size=size)


def read_padded(lib: Any, context: int, address: int, size: int) -> Answer:
    """``microvmi_read_physical_padded``."""
    return answer(lib, lib.microvmi_read_physical_padded, context, address, size=size)


def answer_of(valid: bytes, size: int) -> Answer:
    """What a plain read of ``size`` bytes answers whose valid prefix is ``valid``."""
    whole = len(valid) == size
    return Answer(whole, len(valid), valid + UNTOUCHED * (size - len(valid)), OK if whole else NOT_MAPPED)


def check(got: Answer, expected: Answer, what: str) -> None:
    """Fail with a line: pytest would explain the difference of two large buffers for minutes."""
    if got == expected:
        return
    pairs = zip(got.content, expected.content, strict=True)
    differs = next((index for index, (one, other) in enumerate(pairs) if one != other), None)
    where = "" if differs is None else f", byte {differs:#x} is {got.content[differs]:#x}"
    raise AssertionError(
        f"{what}: {(got.ok, got.done, got.code)} and not {(expected.ok, expected.done, expected.code)}{where}"
    )


def write(lib: Any, context: int, address: int, data: bytes) -> int:
    """``microvmi_write_physical``; the error code, 0 if it was written."""
    done = lib.microvmi_write_physical(context, address, (c_uint8 * len(data))(*data), len(data))
    code = int(lib.microvmi_last_error_code())
    assert done == (code == OK)
    return code


def error_line(lib: Any) -> str:
    """The thread's error text, which is one line that a person reads."""
    text = str(lib.microvmi_last_error().decode())
    assert text
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", text), repr(text)
    assert len(text) < 1000, f"{len(text)} characters: {text[:80]}"
    return text


def refuses(driver_name: str, *calls: Callable[[], object]) -> None:
    """Each call of Python's says in one line that this driver cannot."""
    for call in calls:
        with pytest.raises(NotSupportedError) as caught:
            call()
        assert str(caught.value).startswith(f"the {driver_name} driver cannot ")
        assert str(caught.value).isprintable()


def runs(target: Target) -> bool:
    """Whether the machine runs, as another opening of it sees."""
    with Microvmi.open(target.uri) as machine:
        assert isinstance(machine.driver, SupportsPause)
        return machine.driver.run_state().phase is Phase.RUNS


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail if the block takes longer."""
    started = time.monotonic()
    yield
    took = time.monotonic() - started
    assert took < seconds, f"took {took:.3f} s, and not less than {seconds} s"


def best_of_3(call: Callable[[], object], limit: float) -> float:
    """How long a call takes, in seconds; again, if others may have taken the processor from one that took too long."""
    times = []
    for _ in range(3):
        started = time.monotonic()
        call()
        times.append(time.monotonic() - started)
        if times[-1] < limit:
            break
    return min(times)
