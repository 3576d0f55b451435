# SPDX-License-Identifier: Apache-2.0
"""Virtual machine introspection: physical memory, registers and run state of a virtual machine, from outside.

Start with :class:`Microvmi`. ``Memory(driver)`` and ``PaddedMemory(driver)`` are files over any driver's memory;
:class:`Driver` and the ``Supports*`` protocols in ``libmicrovmi_py.drivers.base`` are what a new driver implements.
"""

import logging

from libmicrovmi_py.drivers.base import Driver
from libmicrovmi_py.errors import (
    AccessError,
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
from libmicrovmi_py.events import ALL_VCPUS, Event, EventKind, Intercept, PageAccess, Reply, ReplyAction
from libmicrovmi_py.memory import Memory, PaddedMemory
from libmicrovmi_py.microvmi import Microvmi
from libmicrovmi_py.model import (
    PAGE_SHIFT,
    PAGE_SIZE,
    DriverType,
    MemoryKind,
    MemoryRange,
    Registers,
    SegmentReg,
    SystemTableReg,
    X86Registers,
)
from libmicrovmi_py.params import Parameters
from libmicrovmi_py.release import release_all
from libmicrovmi_py.version import __version__

__all__ = [
    "ALL_VCPUS",
    "PAGE_SHIFT",
    "PAGE_SIZE",
    "AccessError",
    "Driver",
    "DriverType",
    "DriverUnavailableError",
    "Event",
    "EventKind",
    "ForkedError",
    "Intercept",
    "InvalidArgumentError",
    "InvalidContextError",
    "IoError",
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
    "Parameters",
    "PermissionDeniedError",
    "ReadOnlyError",
    "Registers",
    "Reply",
    "ReplyAction",
    "SegmentReg",
    "StartupError",
    "SystemTableReg",
    "TimeoutExpiredError",
    "VmGoneError",
    "X86Registers",
    "__version__",
    "release_all",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())
