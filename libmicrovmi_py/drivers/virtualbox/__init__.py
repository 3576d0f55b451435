# SPDX-License-Identifier: Apache-2.0
"""The VirtualBox driver: machines of a VirtualBox with FDP, through its library libFDP.

This module is loaded whenever all drivers are tried: the rest follows when there is such a machine.
"""

from __future__ import annotations

from collections.abc import Iterator

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.drivers.base import Driver
from libmicrovmi_py.drivers.virtualbox.channel import open_objects
from libmicrovmi_py.errors import InvalidArgumentError, about_a_machine
from libmicrovmi_py.model import DriverType
from libmicrovmi_py.params import Parameters

if TYPE_CHECKING:
    from libmicrovmi_py.listed import ListedMachine

_LIBRARY = "libFDP.so"
_TIMEOUT = 5.0


class VirtualBoxDriver(Driver):
    """A machine of a VirtualBox that was built with FDP, found by its name; see ``driver.py``."""

    name = "virtualbox"
    type = DriverType.VIRTUALBOX
    parameters = {  # noqa: RUF012
        "library": f"path of libFDP, {_LIBRARY} where the loader looks if not given",
        "timeout": f"seconds that VirtualBox may take to answer, {_TIMEOUT:g} if not given",
    }

    @classmethod
    def open(cls, params: Parameters) -> Driver:
        """Open the machine ``vm_name``.

        Raises ``InvalidArgumentError`` without a name, ``DriverUnavailableError`` for a machine that is not there or
        does not answer, ``PermissionDeniedError``.
        """
        name = params.vm_name
        if not name:
            raise InvalidArgumentError("VirtualBox driver requires a VM name parameter (vm_name)")
        open_objects(name, named=params.driver is not None)
        from libmicrovmi_py.drivers.virtualbox.driver import OpenMachine

        with about_a_machine():
            return OpenMachine.of(name, params.get("library", _LIBRARY), params.seconds("timeout", _TIMEOUT))

    @classmethod
    def machines(cls) -> Iterator[ListedMachine]:
        """Every machine that has FDP's shared memory; see ``listing.py``."""
        from libmicrovmi_py.drivers.virtualbox.listing import machines

        return machines(cls, _LIBRARY)


DRIVER = VirtualBoxDriver
