# SPDX-License-Identifier: Apache-2.0
"""Virtual machine introspection: physical memory, registers and run state of a virtual machine, from outside.

Start with :class:`Microvmi`. ``Memory(driver)`` and ``PaddedMemory(driver)`` are files over any driver's memory;
:class:`Driver` and the ``Supports*`` protocols in ``libmicrovmi_py.drivers.base`` are what a new driver implements.
"""

import sys

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.drivers.base import Driver
from libmicrovmi_py.errors import (
    AccessError,
    CancelledError,
    DriverUnavailableError,
    ForkedError,
    InvalidArgumentError,
    InvalidContextError,
    IoError,
    MicrovmiError,
    NoDriverError,
    NotMappedError,
    NotSupportedError,
    PermissionDeniedError,
    ReadOnlyError,
    StartupError,
    TimeoutExpiredError,
    VmGoneError,
)
from libmicrovmi_py.events import (
    ALL_VCPUS,
    UNKNOWN_VCPU,
    Event,
    EventKind,
    Intercept,
    InterceptFlag,
    PageAccess,
    Reply,
    ReplyAction,
    Stands,
)
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.machine.release import release_all
from libmicrovmi_py.memory import Memory, PaddedMemory
from libmicrovmi_py.model import (
    PAGE_SHIFT,
    PAGE_SIZE,
    DriverType,
    MemoryKind,
    MemoryRange,
)
from libmicrovmi_py.params import Parameters
from libmicrovmi_py.version import __version__

if TYPE_CHECKING:
    from libmicrovmi_py.arch import Aarch64Registers, Registers, X86Registers
    from libmicrovmi_py.arch.state import VcpuState
    from libmicrovmi_py.arch.x86.registers import SegmentReg, SystemTableReg
    from libmicrovmi_py.drivers.imageinfo import ImageAccess, ImageInfo
    from libmicrovmi_py.drivers.snapshot import SnapshotInfo, SnapshotMethod
    from libmicrovmi_py.listed import ListedMachine, MachineState
    from libmicrovmi_py.machine.listing import list_vms
    from libmicrovmi_py.memory.virtual import AddressSpace
    from libmicrovmi_py.paging import (
        PageRights,
        PageTables,
        Paging,
        PagingControl,
        Translation,
        TranslationFailure,
    )

__all__ = [
    "ALL_VCPUS",
    "PAGE_SHIFT",
    "PAGE_SIZE",
    "UNKNOWN_VCPU",
    "Aarch64Registers",
    "AccessError",
    "AddressSpace",
    "CancelledError",
    "Driver",
    "DriverType",
    "DriverUnavailableError",
    "Event",
    "EventKind",
    "ForkedError",
    "ImageAccess",
    "ImageInfo",
    "Intercept",
    "InterceptFlag",
    "InvalidArgumentError",
    "InvalidContextError",
    "IoError",
    "ListedMachine",
    "MachineState",
    "Memory",
    "MemoryKind",
    "MemoryRange",
    "Microvmi",
    "MicrovmiError",
    "NoDriverError",
    "NotMappedError",
    "NotSupportedError",
    "PaddedMemory",
    "PageAccess",
    "PageRights",
    "PageTables",
    "Paging",
    "PagingControl",
    "Parameters",
    "PermissionDeniedError",
    "ReadOnlyError",
    "Registers",
    "Reply",
    "ReplyAction",
    "SegmentReg",
    "SnapshotInfo",
    "SnapshotMethod",
    "Stands",
    "StartupError",
    "SystemTableReg",
    "TimeoutExpiredError",
    "Translation",
    "TranslationFailure",
    "VcpuState",
    "VmGoneError",
    "X86Registers",
    "__version__",
    "list_vms",
    "release_all",
]


_LATE = {
    **dict.fromkeys(("Aarch64Registers", "Registers", "X86Registers"), "libmicrovmi_py.arch"),
    **dict.fromkeys(("SegmentReg", "SystemTableReg"), "libmicrovmi_py.arch.x86.registers"),
    "VcpuState": "libmicrovmi_py.arch.state",
    **dict.fromkeys(("ListedMachine", "MachineState"), "libmicrovmi_py.listed"),
    "list_vms": "libmicrovmi_py.machine.listing",
    **dict.fromkeys(("ImageAccess", "ImageInfo"), "libmicrovmi_py.drivers.imageinfo"),
    **dict.fromkeys(("SnapshotInfo", "SnapshotMethod"), "libmicrovmi_py.drivers.snapshot"),
    "AddressSpace": "libmicrovmi_py.memory.virtual",
    **dict.fromkeys(("PageRights", "PageTables", "Paging", "PagingControl"), "libmicrovmi_py.paging"),
    **dict.fromkeys(("Translation", "TranslationFailure"), "libmicrovmi_py.paging"),
}
"""Where names are that many programs do not need."""


def __getattr__(name: str) -> object:
    """Load what is named for the first time."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    __import__(_LATE[name])
    globals()[name] = value = getattr(sys.modules[_LATE[name]], name)
    return value
