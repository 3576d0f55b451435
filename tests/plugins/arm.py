# SPDX-License-Identifier: Apache-2.0
"""A driver of a machine with two AArch64 vCPUs, of which no two registers are alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from libmicrovmi_py.arch.state import NAMES, VcpuState
from libmicrovmi_py.drivers.base import Driver
from libmicrovmi_py.errors import NotMappedError
from libmicrovmi_py.model import Architecture, asked_vcpus, check_vcpu
from libmicrovmi_py.params import Parameters

_VCPUS = 2


def _numbered(vcpu: int) -> dict[str, int]:
    """Each register has its number, from 1, above what is the same in all of this vCPU's."""
    places = {name: place for place, name in enumerate(NAMES[Architecture.AARCH64], 1)}
    return {name: place << 56 | 0xA64000 + vcpu for name, place in places.items()}


class Arm(Driver):
    """It has no memory, and keeps the registers that are written."""

    name = "arm"
    automatic = False
    architecture = Architecture.AARCH64
    max_addr = 0
    writable_registers = NAMES[Architecture.AARCH64]

    def __init__(self) -> None:
        self._values = [_numbered(vcpu) for vcpu in range(_VCPUS)]

    @classmethod
    def open(cls, params: Parameters) -> Arm:
        return cls()

    def read_frame(self, frame: int, offset: int, buffer: memoryview) -> None:
        raise NotMappedError(f"no frame {frame:#x}")

    def vcpu_count(self) -> int:
        return _VCPUS

    def read_states(self, vcpus: Sequence[int] | None) -> list[VcpuState]:
        return [VcpuState(self.architecture, self._values[vcpu]) for vcpu in asked_vcpus(vcpus, _VCPUS)]

    def write_state(self, vcpu: int, values: Mapping[str, int]) -> None:
        check_vcpu(vcpu, _VCPUS)
        self._values[vcpu].update(values)

    def close(self) -> None:
        pass


DRIVER = Arm
