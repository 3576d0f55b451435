# SPDX-License-Identifier: Apache-2.0
"""Registers of more than one architecture: by the tag, and never those of one for a machine of another."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import byref, pointer, sizeof
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from libmicrovmi_py import Aarch64Registers, InvalidArgumentError, Microvmi, Reply, X86Registers
from libmicrovmi_py.events import EventKind, Intercept

if TYPE_CHECKING:
    from programs import Programs

PLUGINS = Path(__file__).resolve().parents[1] / "plugins"
INVALID_ARGUMENT = 1
CR, ALL_VCPUS = 1, 0xFFFF

Open = Callable[[str], int]


@pytest.fixture
def arm(monkeypatch: pytest.MonkeyPatch) -> str:
    """A machine of AArch64 vCPUs, each register of which has its place in the struct in its top byte."""
    monkeypatch.setenv("MICROVMI_PLUGIN_PATH", str(PLUGINS))
    return "vmi://arm/"


def refused(lib: Any, done: bool, words: bytes) -> None:
    assert not done
    assert (lib.microvmi_last_error_code(), lib.microvmi_last_error()) == (INVALID_ARGUMENT, words)


def test_a_c_program_reads_and_writes_them(programs: Programs) -> None:
    programs.run(programs.linked("aarch64"), env={"MICROVMI_PLUGIN_PATH": str(PLUGINS)})


def test_the_stubs_have_a_machine_s_own(stubs: ModuleType, lib: Any, opened: Open, arm: str) -> None:
    vm, registers, back = opened(arm), stubs.Registers(), stubs.Registers()
    assert lib.microvmi_read_registers(vm, 0, byref(registers)), lib.microvmi_last_error()
    assert registers.tag == stubs.MICROVMI_REGISTERS_AARCH64
    names = [name for name, _ in stubs.microvmi_aarch64_registers._fields_]
    assert [getattr(registers.aarch64, name) >> 56 for name in names] == list(range(1, 51))
    registers.aarch64.sp_el1 = 0xFFFF_8000_0000_1000
    assert lib.microvmi_write_registers(vm, 0, byref(registers)), lib.microvmi_last_error()
    assert lib.microvmi_read_registers(vm, 0, byref(back))
    assert bytes(back) == bytes(registers)


def test_python_has_them_as_their_class(arm: str) -> None:
    with Microvmi.open(arm) as machine:
        registers = machine.read_registers(1)
        assert isinstance(registers, Aarch64Registers)
        assert (registers.x0 >> 56, registers.pc >> 56, registers.midr_el1 >> 56) == (1, 32, 49)
        with pytest.raises(InvalidArgumentError, match="of architecture X86: the machine's is AARCH64"):
            machine.write_registers(X86Registers(), 1)


def test_an_x86_machine_takes_no_others(stubs: ModuleType, lib: Any, opened: Open) -> None:
    vm, event = opened("vmi://fake/"), stubs.microvmi_event(struct_size=sizeof(stubs.microvmi_event))
    cr3 = stubs.microvmi_intercept(struct_size=sizeof(stubs.microvmi_intercept), kind=CR, number=3)
    assert lib.microvmi_toggle_intercept(vm, ALL_VCPUS, byref(cr3), True)
    assert lib.microvmi_listen(vm, 2000, byref(event)), lib.microvmi_last_error()
    registers, before, after = stubs.Registers(), stubs.Registers(), stubs.Registers()
    assert lib.microvmi_read_registers(vm, 0, byref(before))
    registers.tag, registers.aarch64.x0 = stubs.MICROVMI_REGISTERS_AARCH64, 0xBAD
    words = b"registers of architecture AARCH64: the machine's is X86"
    refused(lib, lib.microvmi_write_registers(vm, 0, byref(registers)), words)
    reply = stubs.microvmi_reply(struct_size=sizeof(stubs.microvmi_reply), registers=pointer(registers))
    refused(lib, lib.microvmi_reply_event(vm, byref(event), byref(reply)), words)
    assert lib.microvmi_read_registers(vm, 0, byref(after))
    assert bytes(after) == bytes(before)
    assert lib.microvmi_reply_event(vm, byref(event), None), lib.microvmi_last_error()


def test_an_event_stays_open_when_its_answer_has_registers_of_another() -> None:
    with Microvmi.open("vmi://fake/") as machine:
        machine.toggle_intercept(Intercept(EventKind.CR, 3))
        event = machine.listen(2)
        assert event is not None
        with pytest.raises(InvalidArgumentError, match="of architecture AARCH64: the machine's is X86"):
            machine.reply_event(event, Reply(registers=Aarch64Registers()))
        machine.reply_event(event)
