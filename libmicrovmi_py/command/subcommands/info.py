# SPDX-License-Identifier: Apache-2.0
"""Tell what a machine is: driver, memory, vCPUs, state, and what it can, or what a memory image has.

Of an image that is its format, what wrote it, the files that belong to it, how much of the machine's memory they have,
and what is missing. Nothing is stopped for it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.command import kit
from libmicrovmi_py.command.meter import amount
from libmicrovmi_py.drivers.control import Phase, SupportsPause
from libmicrovmi_py.drivers.imageinfo import ImageInfo, SupportsImageInfo
from libmicrovmi_py.listed import MachineState
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.model import MemoryKind

_IMAGE = "image"
_ONE_A_LINE = ("files", "missing", "remarks")
_STATES = {Phase.RUNS: MachineState.RUNNING, Phase.STOPPED: MachineState.PAUSED}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The machine."""
    kit.machine_argument(parser)
    kit.json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Ask it."""
    with kit.opened(options) as machine:
        document = _document(machine)
    kit.show(options, document, lambda: _lines(document))
    return 0


def _document(machine: Microvmi) -> dict[str, object]:
    able, driver = machine.abilities, machine.driver
    image = {_IMAGE: _image(driver.image_info())} if isinstance(driver, SupportsImageInfo) else {}
    ram = sum(item.size for item in machine.memory_map() if item.kind is MemoryKind.RAM)
    return {
        "driver": driver.name,
        "architecture": driver.architecture.name.lower(),
        "state": _state(machine),
        "memory": ram,
        "max_address": f"{machine.max_addr:#x}",
        "vcpus": machine.vcpu_count() if Ability.VCPU_COUNT in able.can else None,
        "abilities": [item.name.lower() for item in Ability if item in able.can and item.name],
        "events": sorted(kind.name.lower() for kind in able.events.kinds),
        **image,
    }


def _image(info: ImageInfo) -> dict[str, object]:
    return {
        "format": info.format,
        "wrappers": list(info.wrappers),
        "producer": info.producer or None,
        "machine_type": info.machine or None,
        "pages": {"present": info.present, "absent": info.absent, "zero": info.zero},
        "access": info.access.name.lower(),
        "files": list(info.files),
        "missing": list(info.missing),
        "remarks": list(info.remarks),
    }


def _state(machine: Microvmi) -> str | None:
    """In the words of a list of machines; a dump is always paused. ``None``: nobody can tell."""
    if not isinstance(machine.driver, SupportsPause) or Ability.PAUSE not in machine.abilities.can:
        return None
    state = _STATES.get(machine.driver.run_state().phase, MachineState.OTHER)
    return state.name.lower()


def _lines(document: dict[str, object]) -> Iterator[str]:
    for key, value in document.items():
        if key == _IMAGE and isinstance(value, dict):
            yield from _lines(value)
        elif key in _ONE_A_LINE and isinstance(value, list):
            yield from (_line(key, item) for item in value or ["nothing" if key == "missing" else "none"])
        else:
            yield _line(key, _cell(key, value))


def _line(key: str, cell: str) -> str:
    return f"{key.replace('_', ' '):12}  {cell}"


def _cell(key: str, value: object) -> str:
    if key == "memory" and isinstance(value, int):
        return amount(value)
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{count} {name}" for name, count in value.items() if count is not None)
    return "not known" if value is None else str(value)
