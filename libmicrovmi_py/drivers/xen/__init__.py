# SPDX-License-Identifier: Apache-2.0
"""The Xen driver: an HVM or PVH domain of the Xen that this host (dom0) runs under.

Hosts without Xen import this file only; what an open domain can do is in ``driver.py``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.drivers.base import Driver
from libmicrovmi_py.errors import DriverUnavailableError, InvalidArgumentError
from libmicrovmi_py.model import DriverType
from libmicrovmi_py.params import Parameters

if TYPE_CHECKING:
    from libmicrovmi_py.listed import ListedMachine

DOORS = ("/dev/xen/privcmd", "/proc/xen/privcmd")
"""What Xen's libraries go through; one of them is there on every Xen host, and on no other."""


class XenDriver(Driver):
    """A domain, found by its name or id in xenstore, through Xen's own libraries of the version that runs."""

    name = "xen"
    type = DriverType.XEN

    @classmethod
    def open(cls, params: Parameters) -> XenDriver:
        """Find the domain ``vm_name`` and look which of its frames exist.

        Raises ``InvalidArgumentError`` for no such domain, ``NotSupportedError`` for a PV one,
        ``DriverUnavailableError`` on a host without Xen, where its libraries may well be installed,
        ``PermissionDeniedError``, ``VmGoneError``.
        """
        if not params.vm_name:
            raise InvalidArgumentError("Xen driver requires a VM name parameter (vm_name: a domain's name or id)")
        if not _is_xen():
            raise DriverUnavailableError(f"no {DOORS[0]}: this host does not run under Xen; run this in dom0")
        from libmicrovmi_py.drivers.xen.driver import named

        return named(params.vm_name)

    @classmethod
    def machines(cls) -> Iterator[ListedMachine]:
        """Every domain but dom0; see ``listing.py``. Nothing on a host without Xen.

        Raises ``DriverUnavailableError`` or ``PermissionDeniedError`` where Xen cannot be asked.
        """
        if not _is_xen():
            return iter(())
        from libmicrovmi_py.drivers.xen.library import load_all
        from libmicrovmi_py.drivers.xen.listing import machines

        return machines(cls, load_all())


def _is_xen() -> bool:
    return any(os.path.exists(door) for door in DOORS)


DRIVER = XenDriver
