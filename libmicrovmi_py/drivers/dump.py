# SPDX-License-Identifier: Apache-2.0
"""Memory images in files: raw, where byte N of the file is guest-physical address N."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import ClassVar

from libmicrovmi_py.drivers.base import Driver, Region
from libmicrovmi_py.errors import DriverUnavailableError, InvalidArgumentError
from libmicrovmi_py.model import DriverType, MemoryKind
from libmicrovmi_py.params import Parameters
from libmicrovmi_py.transport.mapping import HostMapping

_FORMATS = {
    b"\x7fELF": "an ELF core",
    b"EMiL": "a LiME image",
    b"PAGEDUMP": "a 32-bit Windows crash dump",
    b"PAGEDU64": "a 64-bit Windows crash dump",
    b"KDUMP   ": "a kdump-compressed image",
    b"makedumpfile\0": "a flattened kdump image",
}


class DumpDriver(Driver):
    """A raw image, mapped read-only. Bytes of a frame that the end of the file cuts exist up to there."""

    name = "dump"
    type = DriverType.DUMP
    parameters: ClassVar[dict[str, str]] = {
        "path": "the image; a vm_name that contains a slash does as well",
        "format": "raw: take the file as it is, whatever it looks like",
    }

    def __init__(self, mapping: HostMapping) -> None:
        self._mapping = mapping
        self._regions = (Region(0, mapping.size, MemoryKind.RAM, mapping, 0),)

    @classmethod
    def open(cls, params: Parameters) -> DumpDriver:
        path = params.get("path") or _path_in(params.vm_name)
        if path is None:
            raise InvalidArgumentError("Dump driver requires a path")
        if params.get("format", "raw") != "raw":
            raise InvalidArgumentError(f"format={params['format']}: only raw is known")
        mapping = HostMapping.of_file(path)
        found = _format_of(mapping)
        if found is not None and "format" not in params:
            mapping.close()
            raise DriverUnavailableError(
                f"{path} is {found}, and only raw images can be read: convert it, or say format=raw to take it as raw"
            )
        return cls(mapping)

    @property
    def max_addr(self) -> int:
        return self._mapping.size

    def regions(self) -> Sequence[Region]:
        """The whole file, as RAM from address 0."""
        return self._regions

    def close(self) -> None:
        self._mapping.close()


def _path_in(vm_name: str | None) -> str | None:
    return vm_name if vm_name is not None and os.sep in vm_name else None


def _format_of(mapping: HostMapping) -> str | None:
    view = mapping.reach().view
    start = bytes(view[:16]) if view else b""
    return next((name for magic, name in _FORMATS.items() if start.startswith(magic)), None)


DRIVER = DumpDriver
