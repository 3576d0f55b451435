# SPDX-License-Identifier: Apache-2.0
"""Upstream's classes of parameters, and what they are here."""

from __future__ import annotations

import enum

from libmicrovmi_py.params import Parameters


class DriverType(enum.Enum):
    """Upstream's drivers, by its numbers."""

    KVM = 0
    VirtualBox = 1
    Xen = 2


DRIVERS = {kind.value: kind.name.lower() for kind in DriverType}
"""Our names of upstream's drivers, by its numbers."""


class CommonInitParamsPy:
    """``vm_name``: the machine, as every driver is told it."""

    def __init__(self) -> None:
        self.vm_name: str | None = ""


class KVMInitParamsPy:
    """``unix_socket``: the path where QEMU waits for who looks into it."""

    def __init__(self) -> None:
        self.unix_socket: str = ""


class MemflowInitParamsPy:
    """``connector_args`` are ``key=value`` items for the connector of that name."""

    def __init__(self, name: str) -> None:
        self.connector_name = name
        self.connector_args: list[str] = []


class DriverInitParamsPy:
    """All of them; what is ``None`` is not given."""

    def __init__(self) -> None:
        self.common: CommonInitParamsPy | None = None
        self.kvm: KVMInitParamsPy | None = None
        self.memflow: MemflowInitParamsPy | None = None


def parameters(driver_type: int | None, given: DriverInitParamsPy | None) -> Parameters:
    """The same as parameters of ours. Raises ``ValueError`` for a number that is no driver's."""
    if driver_type is not None and driver_type not in DRIVERS:
        raise ValueError(f"Invalid value for DriverType: {driver_type}")
    values: dict[str, str | None] = {}
    if given is not None and given.common is not None:
        values["vm_name"] = given.common.vm_name
    if given is not None and given.kvm is not None:
        values["kvm_unix_socket"] = given.kvm.unix_socket
    if given is not None and given.memflow is not None:
        values["memflow_connector_name"] = given.memflow.connector_name
        values["memflow_connector_args"] = ",".join(given.memflow.connector_args)
    return Parameters(values, None if driver_type is None else DRIVERS[driver_type], word=True)
