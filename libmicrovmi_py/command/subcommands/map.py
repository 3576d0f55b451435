# SPDX-License-Identifier: Apache-2.0
"""Show the guest-physical memory that exists, or with --virtual what page tables map.

END is one past the last byte. Physical memory is ram, rom (what the guest cannot write at present) or device (memory
of a device, such as that of a screen); registers of devices are none. Of virtual memory, pages that are neighbours in
both spaces and have the same rights are one line; rights are those of the kernel and those of programs: read, write,
execute.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from libmicrovmi_py.command import kit
from libmicrovmi_py.command.meter import amount
from libmicrovmi_py.command.rights import rights_of
from libmicrovmi_py.command.spaces import is_virtual, space_arguments, space_of
from libmicrovmi_py.export.view import View
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.model import MemoryRange
from libmicrovmi_py.paging import VirtualRange


def arguments(parser: argparse.ArgumentParser) -> None:
    """The machine, and which memory."""
    kit.machine_argument(parser, view=True, default=View.LIVE)
    space_arguments(parser, switch=True)
    kit.json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Read the map."""
    with kit.viewed(options) as machine:
        if is_virtual(options):
            _virtual(machine, options)
        else:
            ranges = machine.memory_map()
            kit.show(options, [_document(item) for item in ranges], lambda: _lines(ranges))
    return 0


def _document(item: MemoryRange) -> dict[str, object]:
    return {"start": f"{item.start:#x}", "end": f"{item.end:#x}", "size": item.size, "kind": item.kind.name.lower()}


def _lines(ranges: Sequence[MemoryRange]) -> Iterator[str]:
    rows = [(f"{item.start:#x}", f"{item.end:#x}", amount(item.size), item.kind.name.lower()) for item in ranges]
    yield from kit.table([("START", "END", "SIZE", "KIND"), *rows], (0, 1, 2))


def _virtual(machine: Microvmi, options: argparse.Namespace) -> None:
    """Lines as the tables are read: there may be hundreds of thousands."""
    found = space_of(machine, options).mapped()
    value = [_virtual_document(item) for item in found] if options.json else None
    kit.show(options, value, lambda: map(_virtual_line, found))


def _virtual_document(item: VirtualRange) -> dict[str, object]:
    return {
        "start": f"{item.start:#x}",
        "end": f"{item.end:#x}",
        "size": item.size,
        "physical_address": f"{item.physical_address:#x}",
        "rights": rights_of(item.rights),
        "page_size": item.page_size,
    }


def _virtual_line(item: VirtualRange) -> str:
    pages = f"{item.size // item.page_size} x {amount(item.page_size)}"
    return f"{item.start:#018x}  {item.end:#018x}  {item.physical_address:#014x}  {rights_of(item.rights)}  {pages}"
