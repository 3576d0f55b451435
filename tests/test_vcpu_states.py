# SPDX-License-Identifier: Apache-2.0
"""States of vCPUs: what is known and what is not, the frozen struct that is made of it, and what is refused."""

from __future__ import annotations

import pytest
from processors import x86_registers

from libmicrovmi_py import Microvmi, Reply
from libmicrovmi_py.arch import Aarch64Registers, X86Registers
from libmicrovmi_py.arch.state import NAMES, VcpuState, differences, registers_of, wanted
from libmicrovmi_py.arch.x86.registers import WIDTHS
from libmicrovmi_py.drivers.fake import FakeDriver
from libmicrovmi_py.errors import InvalidArgumentError, NotSupportedError
from libmicrovmi_py.events import EventKind, Intercept
from libmicrovmi_py.model import PAGE_SIZE, Architecture

X86, AARCH64 = Architecture.X86, Architecture.AARCH64


class Sealed(FakeDriver):
    """CR0 and CR8 cannot be written."""

    @property
    def writable_registers(self) -> list[str]:
        return [name for name in NAMES[self.architecture] if name not in ("cr0", "cr8")]


def machine_of(*states: dict[str, int], kind: type[FakeDriver] = FakeDriver) -> Microvmi:
    return Microvmi.from_driver(kind({0: bytearray(PAGE_SIZE)}, states=[VcpuState(X86, item) for item in states]))


def numbered(architecture: Architecture) -> VcpuState:
    """No two values are alike, as far as they are wide enough."""
    widths = WIDTHS if architecture is X86 else {}
    masks = {name: (1 << widths.get(name, 64)) - 1 for name in NAMES[architecture]}
    values = {name: 0xF1E2D3C4_B5A60000 + number & masks[name] for number, name in enumerate(NAMES[architecture])}
    return VcpuState(architecture, values)


def test_a_state_has_what_is_known_and_nothing_else() -> None:
    with machine_of({"rip": 7}, {"lstar": 0, "cr3": 5}) as machine:
        first, second = machine.read_states()
        assert (dict(first), dict(second)) == ({"rip": 7}, {"lstar": 0, "cr3": 5})
        assert "lstar" in second
        assert "lstar" not in first
        assert first.get("lstar") is None
        assert machine.read_state(1) == second
        assert repr(second) == "<VcpuState X86: lstar=0x0, cr3=0x5>"


def test_a_register_that_is_not_known_says_why_if_somebody_knows() -> None:
    state = VcpuState(X86, {"rip": 7}, "the monitor\nrefused")
    with pytest.raises(KeyError, match=r"lstar is not known: the monitor\\+nrefused"):
        state["lstar"]
    with pytest.raises(KeyError, match=r"^'nonsense'$"):
        state["nonsense"]
    with pytest.raises(KeyError, match=r"^'lstar'$"):
        VcpuState(X86, {"rip": 7})["lstar"]
    assert (state["rip"], state.get("lstar"), "lstar" in state, len(state)) == (7, None, False, 1)


def test_what_is_not_known_is_0_in_the_frozen_struct_only() -> None:
    with machine_of({"efer": 0xD01, "star": 3, "gs_base": 4, "kernel_gs_base": 5}) as machine:
        registers = x86_registers(machine)
        assert (registers.efer, registers.msr_efer, registers.msr_star, registers.gs.base) == (0xD01, 0xD01, 3, 4)
        assert (registers.rax, registers.cs.limit) == (0, 0)
        assert len(machine.read_state()) == 4


def test_a_vcpu_of_which_nothing_is_known_is_empty_among_all_and_an_error_alone() -> None:
    with machine_of({"rip": 1}, {}) as machine:
        assert [len(state) for state in machine.read_states()] == [1, 0]
        for read in (machine.read_state, machine.read_registers):
            with pytest.raises(NotSupportedError, match="nothing is known of the registers of vCPU 1"):
                read(1)


@pytest.mark.parametrize("architecture", Architecture)
def test_every_register_that_is_written_is_read_again(architecture: Architecture) -> None:
    state = numbered(architecture)
    with Microvmi.open(f"vmi://fake/?vcpus=2&architecture={architecture.name.lower()}") as machine:
        before = machine.read_state(0)
        machine.write_state(state, 1)
        assert machine.read_state(1) == state
        assert machine.read_state(0) == before


@pytest.mark.parametrize("kind", [X86Registers, Aarch64Registers])
def test_the_frozen_struct_has_the_registers_of_a_state(kind: type[X86Registers | Aarch64Registers]) -> None:
    state = numbered(kind.architecture)
    registers = registers_of(state)
    assert isinstance(registers, kind)
    assert all(state[name] == value for name, value in registers.pairs())
    assert {name for name, _ in registers.pairs()} <= set(NAMES[kind.architecture])
    assert differences(registers, state) == {}


def test_a_write_by_the_frozen_struct_leaves_what_it_does_not_have() -> None:
    with machine_of({"rax": 1, "lstar": 2, "kernel_gs_base": 3}) as machine:
        registers = x86_registers(machine)
        registers.rax = 9
        machine.write_registers(registers)
        assert machine.read_state() == {"rax": 9, "lstar": 2, "kernel_gs_base": 3}


@pytest.mark.parametrize(("member", "other"), [("efer", "msr_efer"), ("msr_efer", "efer")])
def test_of_two_members_that_are_one_register_the_one_that_is_different_counts(member: str, other: str) -> None:
    registers = X86Registers(efer=0x100, msr_efer=0x100)
    setattr(registers, member, 0x500)
    assert differences(registers, {"efer": 0x100}) == {"efer": 0x500}
    assert wanted(registers, lambda: {"efer": 0x100})["efer"] == 0x500
    setattr(registers, other, 0x500)
    assert wanted(registers, dict)["efer"] == 0x500


def test_what_cannot_be_written_is_named_and_nothing_is_written() -> None:
    with machine_of({"rax": 1, "cr0": 2}, kind=Sealed) as machine:
        with pytest.raises(NotSupportedError, match=r"does not let one write cr0, cr8$"):
            machine.write_state({"rax": 5, "cr0": 3, "cr8": 1})
        assert machine.read_state() == {"rax": 1, "cr0": 2}
        registers = x86_registers(machine)
        registers.rax, registers.cr0 = 6, 7
        machine.write_registers(registers)
        assert machine.read_state() == {"rax": 6, "cr0": 2}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("cs_selector", 1 << 16), ("cs_limit", 1 << 32), ("tr_attributes", 1 << 12), ("gdt_limit", 1 << 16)),
        *(("cr8", 16), ("rax", 1 << 64), ("rax", -1), ("tsc_aux", 1 << 32)),
    ],
)
def test_a_value_that_does_not_fit_is_refused_and_nothing_is_written(name: str, value: int) -> None:
    with machine_of({"rip": 1}) as machine:
        with pytest.raises(InvalidArgumentError, match=f"{name}: .* does not fit"):
            machine.write_state({"rip": 2, name: value})
        machine.write_state({name: value - 1 if value > 0 else 0})
        assert machine.read_state() == {"rip": 1, name: value - 1 if value > 0 else 0}


def test_a_name_that_is_no_register_is_refused() -> None:
    with machine_of({"rip": 1}) as machine:
        with pytest.raises(InvalidArgumentError, match="X86 has no register msr_efer"):
            machine.write_state({"rip": 2, "msr_efer": 1})
        with pytest.raises(InvalidArgumentError, match="of architecture AARCH64: the machine's is X86"):
            machine.write_state(VcpuState(AARCH64, {}))
        assert machine.read_state() == {"rip": 1}


def test_an_answer_to_an_event_makes_nothing_known_that_was_not() -> None:
    with machine_of({"rip": 1, "rax": 2, "cr0": 1, "cr3": 3}) as machine:
        machine.toggle_intercept(Intercept(EventKind.CR, 3))
        event = machine.listen(2)
        assert event is not None
        registers = x86_registers(machine)
        registers.rax, registers.rbx = 5, 6
        machine.reply_event(event, Reply(registers=registers))
        state = machine.read_state()
        assert (state["rax"], state["rbx"], state["cr3"]) == (5, 6, event.new_value)
        assert set(state) == {"rip", "rax", "rbx", "cr0", "cr3"}
        machine.toggle_intercept(Intercept(EventKind.CR, 3), enabled=False)
