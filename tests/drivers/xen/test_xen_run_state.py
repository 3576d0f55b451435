# SPDX-License-Identifier: Apache-2.0
"""Pauses, which Xen counts, and what is written while the domain stands still; over the Xen simulator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from processors import x86_registers

from libmicrovmi_py import Microvmi

if TYPE_CHECKING:
    from drivers.xen.simulator import Simulator


def test_pauses_are_counted_by_xen_and_ours_is_one(xen: Simulator) -> None:
    machine = xen.open()
    machine.pause()
    machine.pause()
    assert xen.get("paused") == 1
    machine.close()
    assert xen.get("paused") == 0


def test_a_pause_that_somebody_else_added_stays(xen: Simulator) -> None:
    machine = xen.open()
    machine.pause()
    xen.set("paused", 2)
    machine.close()
    assert xen.get("paused") == 1


def test_a_pause_of_ours_that_somebody_took_back_is_not_taken_back_again(xen: Simulator) -> None:
    machine = xen.open()
    machine.pause()
    xen.set("paused", 0)
    machine.memory_map()
    xen.set("paused", 1)
    machine.close()
    assert xen.get("paused") == 1


def test_a_pause_of_somebody_else_is_left_alone(xen: Simulator) -> None:
    xen.set("paused", 1)
    machine = xen.open()
    machine.pause()
    machine.close()
    assert xen.get("paused") == 1


def test_resume_takes_back_the_pauses_of_all(xen: Simulator, machine: Microvmi) -> None:
    machine.pause()
    xen.set("paused", 3)
    machine.resume()
    machine.resume()
    assert xen.get("paused") == 0


def test_registers_are_written_while_the_domain_stands_still(xen: Simulator, machine: Microvmi) -> None:
    others = xen.cpu(0), xen.cpu(2)
    registers = x86_registers(machine, 1)
    assert registers.apic_base == 0xFEE00900
    registers.rip, registers.cs.base = 0x77, 0x88
    machine.write_registers(registers, 1)
    assert x86_registers(machine, 1) == registers
    assert (xen.cpu(0), xen.cpu(2)) == others
    assert xen.get("paused") == 0
