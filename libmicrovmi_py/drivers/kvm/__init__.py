# SPDX-License-Identifier: Apache-2.0
"""The KVM driver: a machine of a KVM and a QEMU with introspection (KVMi), through Bitdefender's libkvmi.

This module is loaded whenever all drivers are tried: the rest follows when a socket was named.
"""

from __future__ import annotations

from collections.abc import Iterator

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.drivers.base import Driver
from libmicrovmi_py.errors import InvalidArgumentError
from libmicrovmi_py.model import DriverType
from libmicrovmi_py.params import Parameters

if TYPE_CHECKING:
    from libmicrovmi_py.listed import ListedMachine

_TIMEOUT = 10.0


class KvmDriver(Driver):
    """A machine whose QEMU connects to a socket at which libkvmi listens; see ``driver.py``."""

    name = "kvm"
    type = DriverType.KVM
    parameters = {  # noqa: RUF012
        "kvm_unix_socket": "path of the socket that QEMU's introspection connects to",
        "timeout": f"seconds to wait for QEMU, and for vCPUs to go on at a resume, {_TIMEOUT:g} if not given",
        "library": "path of libkvmi.so, if it is not where the loader looks",
    }

    @classmethod
    def open(cls, params: Parameters) -> Driver:
        """Wait for the machine to connect, unless it has.

        Raises ``InvalidArgumentError``, ``DriverUnavailableError`` without libkvmi, ``TimeoutExpiredError``.
        """
        if "kvm_unix_socket" not in params:
            raise InvalidArgumentError(
                "KVM driver requires the kvm_unix_socket parameter (the socket that QEMU's introspection connects to)"
            )
        from libmicrovmi_py.drivers.kvm.driver import OpenMachine

        return OpenMachine.of(params, params.seconds("timeout", _TIMEOUT))

    @classmethod
    def machines(cls) -> Iterator[ListedMachine]:
        """Every machine that waits for an introspector; see ``listing.py``. None without libkvmi."""
        from libmicrovmi_py.drivers.kvm.listing import machines

        return machines(cls)


DRIVER = KvmDriver
