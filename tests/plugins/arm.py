# SPDX-License-Identifier: Apache-2.0
"""A driver of a machine with two AArch64 vCPUs, of which no two registers are alike."""

from __future__ import annotations

from dataclasses import fields, replace

from libmicrovmi_py.arch import Aarch64Registers
from libmicrovmi_py.drivers.base import Driver, check_vcpu
from libmicrovmi_py.errors import NotMappedError
from libmicrovmi_py.model import Architecture
from libmicrovmi_py.params import Parameters

_VCPUS = 2


def _numbered(vcpu: int) -> Aarch64Registers:
    """Each register has its place in the struct, from 1, above what is the same in all of this vCPU's."""
    places = {item.name: place for place, item in enumerate(fields(Aarch64Registers), 1)}
    return Aarch64Registers(**{name: place << 56 | 0xA64000 + vcpu for name, place in places.items()})


class Arm(Driver):
    """It has no memory, and keeps the registers that are written."""

    name = "arm"
    automatic = False
    architecture = Architecture.AARCH64
    max_addr = 0

    def __init__(self) -> None:
        self._registers = [_numbered(vcpu) for vcpu in range(_VCPUS)]

    @classmethod
    def open(cls, params: Parameters) -> Arm:
        return cls()

    def read_frame(self, frame: int, offset: int, buffer: memoryview) -> None:
        raise NotMappedError(f"no frame {frame:#x}")

    def vcpu_count(self) -> int:
        return _VCPUS

    def read_registers(self, vcpu: int) -> Aarch64Registers:
        check_vcpu(vcpu, _VCPUS)
        return replace(self._registers[vcpu])

    def write_registers(self, vcpu: int, registers: Aarch64Registers) -> None:
        check_vcpu(vcpu, _VCPUS)
        self._registers[vcpu] = replace(registers)

    def close(self) -> None:
        pass


DRIVER = Arm
