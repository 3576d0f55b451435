# SPDX-License-Identifier: Apache-2.0
"""Tell where a virtual address is in physical memory, or why it is nowhere.

Exit code 1 says that it is nowhere. Rights are those of the kernel and those of programs: read, write, execute.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from libmicrovmi_py.command import kit
from libmicrovmi_py.command.meter import amount
from libmicrovmi_py.command.rights import rights_of
from libmicrovmi_py.command.spaces import space_arguments, space_of
from libmicrovmi_py.export.view import View
from libmicrovmi_py.paging import Translation, TranslationFailure


def arguments(parser: argparse.ArgumentParser) -> None:
    """The machine and the address."""
    kit.machine_argument(parser, view=True, default=View.LIVE)
    parser.add_argument("address", metavar="ADDRESS", type=kit.address, help="the virtual address")
    space_arguments(parser, switch=False)
    kit.json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Walk through the tables."""
    with kit.viewed(options) as machine:
        found = space_of(machine, options).translate(options.address)
    document = _document(options.address, found)
    kit.show(options, document, lambda: _lines(document))
    return 0 if found.failure is TranslationFailure.OK else 1


def _document(address: int, found: Translation) -> dict[str, object]:
    return {
        "address": f"{address:#x}",
        "physical_address": None if found.physical_address is None else f"{found.physical_address:#x}",
        "failure": None if found.failure is TranslationFailure.OK else found.failure.name.lower(),
        "page_size": found.page_size,
        "rights": rights_of(found.rights),
        "level": found.level,
        "entry": f"{found.entry:#x}",
        "entry_address": None if found.entry_address is None else f"{found.entry_address:#x}",
    }


def _lines(document: dict[str, object]) -> Iterator[str]:
    for key, value in document.items():
        if value is not None:
            shown = amount(value) if key == "page_size" and isinstance(value, int) else value
            yield f"{key.replace('_', ' '):16}  {shown}"
