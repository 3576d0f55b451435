# SPDX-License-Identifier: Apache-2.0
"""What the driver asks of the monitor besides memory: run state and vCPUs. One connection per call."""

from __future__ import annotations

from libmicrovmi_py.drivers.base import check_vcpu
from libmicrovmi_py.drivers.qemu.registers import parse_registers
from libmicrovmi_py.errors import DriverUnavailableError
from libmicrovmi_py.model import Registers
from libmicrovmi_py.transport.qmp import QmpClient


def stop(client: QmpClient) -> bool:
    """Stop the machine; whether it ran before. Raises ``DriverUnavailableError`` while it is being migrated here."""
    status = client.execute("query-status")
    if status["status"] == "inmigrate":
        raise DriverUnavailableError("the machine waits for an incoming migration and cannot be paused before it")
    if status["running"]:
        client.execute("stop")
    return bool(status["running"])


def run(client: QmpClient) -> None:
    """Let the machine run; nothing happens if it does. QEMU refuses when it needs a reset first."""
    if not client.execute("query-status")["running"]:
        client.execute("cont")


def vcpu_indexes(client: QmpClient) -> list[int]:
    """QEMU's number of each vCPU, in ascending order."""
    return sorted(int(item["cpu-index"]) for item in client.execute("query-cpus-fast"))


def registers(client: QmpClient, vcpu: int) -> Registers:
    """The registers of the ``vcpu``-th vCPU. Raises ``InvalidArgumentError`` and ``NotSupportedError``."""
    indexes = vcpu_indexes(client)
    check_vcpu(vcpu, len(indexes))
    return parse_registers(client.human("info registers", cpu_index=indexes[vcpu]))
