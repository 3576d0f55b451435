# SPDX-License-Identifier: Apache-2.0
"""What the driver asks of the monitor besides memory: run state and vCPUs. One connection per call."""

from __future__ import annotations

from libmicrovmi_py.drivers.base import check_vcpu
from libmicrovmi_py.drivers.qemu.registers import parse_registers
from libmicrovmi_py.errors import DriverUnavailableError
from libmicrovmi_py.model import Registers
from libmicrovmi_py.transport.qmp import QmpClient
from libmicrovmi_py.transport.shape import flag, integer, text

_MOST_VCPUS = 0xFFFF
"""What the C API can tell; QEMU has 4096 at the most."""

_HIGHEST_INDEX = (1 << 31) - 1


def stop(client: QmpClient) -> bool:
    """Stop the machine; whether it ran before. Raises ``DriverUnavailableError`` while it is being migrated here."""
    status = client.record("query-status")
    running = flag(status.get("running"), "whether the machine runs")
    if text(status.get("status"), "the machine's state") == "inmigrate":
        raise DriverUnavailableError("the machine waits for an incoming migration and cannot be paused before it")
    if running:
        client.execute("stop")
    return running


def run(client: QmpClient) -> None:
    """Let the machine run; nothing happens if it does. QEMU refuses when it needs a reset first."""
    if not flag(client.record("query-status").get("running"), "whether the machine runs"):
        client.execute("cont")


def vcpu_indexes(client: QmpClient) -> list[int]:
    """QEMU's number of each vCPU, in ascending order. Raises ``IoError`` for none, or more than can be told."""
    answer = client.records("query-cpus-fast")
    integer(len(answer), "the number of vCPUs", 1, _MOST_VCPUS)
    return sorted(integer(item.get("cpu-index"), "the number of a vCPU", 0, _HIGHEST_INDEX) for item in answer)


def registers(client: QmpClient, vcpu: int) -> Registers:
    """The registers of the ``vcpu``-th vCPU. Raises ``InvalidArgumentError`` and ``NotSupportedError``."""
    indexes = vcpu_indexes(client)
    check_vcpu(vcpu, len(indexes))
    return parse_registers(client.human("info registers", cpu_index=indexes[vcpu]))
