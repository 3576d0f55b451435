# SPDX-License-Identifier: Apache-2.0
"""Which variable tells of changes of the address space: stores of code, and the proof."""

from __future__ import annotations

import pytest

from libmicrovmi_py.drivers.qemu.events.stores import per_vcpu_store, rewrites_itself
from libmicrovmi_py.drivers.qemu.events.trial import Trial

AT = 0xFFFF_FFFF_8107_E9CE
LOADED, OFTEN = 0x31290, 0x31288


@pytest.mark.parametrize(
    ("code", "offset"),
    [
        ("6548890425 90120300", 0x31290),  # mov gs:[0x31290], rax
        ("6566890425 98120300", 0x31298),  # 16 bits
        ("65c70425 90120300 01000000", 0x31290),  # an immediate value
        ("65488935 10000000", (AT + 8 + 0x10) % (1 << 64)),  # relative to the next instruction
        ("6566c70510000000 0100", (AT + 10 + 0x10) % (1 << 64)),
        ("65488b0425 90120300", None),  # a load
        ("48893525 900000", None),  # not by GS
        ("65488943 10000000", None),  # by a register, which is another each time
        ("6548890425 901203", None),  # not all of it is there
    ],
)
def test_stores_at_fixed_offsets_are_known(code: str, offset: int | None) -> None:
    assert per_vcpu_store(bytes.fromhex(code), AT) == offset


@pytest.mark.parametrize(
    ("before", "instruction", "flush"),
    [
        ("900f20d8", "0f22d8", True),
        ("410f20d8", "0f22d8", False),  # out of r8
        ("410f20d8", "410f22d8", True),
        ("900f20d8", "0f22df", False),  # another register
        ("90909090", "0f22d8", False),
        ("900f20d8", "0f22e0", False),  # CR4
    ],
)
def test_a_write_of_what_was_read_is_a_flush(before: str, instruction: str, flush: bool) -> None:
    assert rewrites_itself(bytes.fromhex(before), bytes.fromhex(instruction)) is flush


def turn(trial: Trial, vcpu: int, *offsets: int) -> None:
    """A change, and the stores behind it."""
    trial.stopped(vcpu)
    trial.changed(vcpu)
    for offset in offsets:
        trial.stopped(vcpu)
        trial.written(vcpu, offset)


def test_the_variable_that_is_written_least_often_serves() -> None:
    trial = Trial(AT, (OFTEN, LOADED))
    while not trial.over:
        turn(trial, 0, OFTEN, OFTEN, LOADED)
    assert trial.result(()) == LOADED
    assert trial.result((OFTEN,)) == OFTEN  # it is watched anyway


def test_a_variable_that_was_not_written_once_does_not_serve() -> None:
    trial = Trial(AT, (OFTEN, LOADED))
    for number in range(30):
        turn(trial, 0, OFTEN, *((LOADED,) if number != 12 else ()))
    assert trial.offsets == {OFTEN}
    assert trial.result(()) == OFTEN


def test_what_another_vcpu_disturbed_says_nothing() -> None:
    trial = Trial(AT, (LOADED,))
    for number in range(60):
        turn(trial, 0, *(() if number % 2 else (LOADED,)))
        if number % 2:
            trial.stopped(1)
    assert trial.result(()) == LOADED


def test_a_trial_without_a_variable_is_over() -> None:
    assert Trial(AT, ()).over
    assert Trial(AT, ()).result(()) is None
