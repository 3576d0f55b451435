# SPDX-License-Identifier: Apache-2.0
"""What a QEMU command line says of a machine's size: its memory, its vCPUs; and its UUID."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from libmicrovmi_py.drivers.qemu.commandline import Group, last_values
from libmicrovmi_py.transport.shape import decimal

_MEMORY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)([bkmgtpe]?)", re.IGNORECASE)
_UNITS = "bkmgtpe"
_ROUNDED = 8192
"""Bytes of which QEMU's main memory is a multiple."""

_MOST_MEMORY = 1 << 52
_MOST_VCPUS = 0xFFFF
_TOPOLOGY = ("drawers", "books", "sockets", "dies", "clusters", "modules", "cores", "threads")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def memory_size(argv: Sequence[str], files: Sequence[Group] = ()) -> int:
    """Bytes of main memory as ``-m`` has them, 0 if it says nothing: how much it is then the machine's type decides."""
    return bytes_of(last_values("m", "size", argv, files, "memory").get("size", ""))


def vcpu_count(argv: Sequence[str], files: Sequence[Group] = ()) -> int:
    """The number of vCPUs that the machine starts with as ``-smp`` has it, 1 without; 0 if that cannot be."""
    told = last_values("smp", "cpus", argv, files, "smp-opts")
    parts = [told[name] for name in _TOPOLOGY if name in told]
    for value in (told.get("cpus"), told.get("maxcpus")):
        if value is not None:
            return decimal(value, _MOST_VCPUS) or 0
    count = math.prod(decimal(value, _MOST_VCPUS) or 0 for value in parts)
    return count if count <= _MOST_VCPUS else 0


def machine_uuid(argv: Sequence[str]) -> str:
    """What ``-uuid`` gives the machine, in lower case; ``""`` without one."""
    return uuid_of(last_values("uuid", "uuid", argv).get("uuid", ""))


def uuid_of(text: str) -> str:
    """A UUID in lower case; ``""`` for what is none, or has no digit but 0: QEMU tells that where it was given none."""
    return text.lower() if _UUID.fullmatch(text) and text.strip("0-") else ""


def bytes_of(text: str) -> int:
    """A size as ``-m`` has it, in bytes: mebibytes, or with the letter of another unit; 0 for what is none."""
    match = _MEMORY.fullmatch(text)
    if not match:
        return 0
    size = int(float(match[1]) * (1 << 10 * _UNITS.index(match[2].lower() or "m")))
    return -(-size // _ROUNDED) * _ROUNDED if size <= _MOST_MEMORY else 0
