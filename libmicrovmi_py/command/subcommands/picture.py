# SPDX-License-Identifier: Apache-2.0
"""Show the whole memory at a glance: what each page seems to hold, as a PNG, an SVG or a page of HTML.

The ending of each FILE says what it is: .png, .svg, or .html, which one zooms and points into, and which also tells
whose pages they are, for a Linux guest. The shares are printed. What a page holds is a guess by its bytes.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator

from libmicrovmi_py.command import kit
from libmicrovmi_py.errors import MicrovmiError, told
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.tools.picture import page, png, svg
from libmicrovmi_py.tools.picture.contents import Owner, Picture, look
from libmicrovmi_py.tools.picture.owners import owners
from libmicrovmi_py.tools.picture.palette import LOOKS, amount, share

_WRITERS: dict[str, Callable[[Picture, str], bytes]] = {
    ".png": png.chart,
    ".svg": lambda picture, title: svg.chart(picture, title).encode(),
    ".html": lambda picture, title: page.chart(picture, title).encode(),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The machine, and the files."""
    kit.machine_argument(parser, view=True)
    parser.add_argument("files", metavar="FILE", nargs="*", type=_file, help="a picture: .png, .svg or .html")
    parser.add_argument("--title", help="what stands above it, instead of the machine's name")
    kit.json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Look at the memory, then draw."""
    with kit.viewed(options) as machine:
        with kit.progress(machine.max_addr, "looking at the memory") as report:
            picture = look(machine, report)
        if options.json or any(name.lower().endswith(".html") for name in options.files):
            picture = picture._replace(owners=_owners(machine))
    title = options.title or f"Memory of {os.path.basename(options.machine.rstrip('/')) or options.machine}"
    for name in options.files:
        content = _WRITERS[_ending(name)](picture, title)
        with open(name, "wb") as file:
            file.write(content)
    kit.show(options, _document(picture, options.files) if options.json else None, lambda: _lines(picture))
    return 0


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _file(text: str) -> str:
    if _ending(text) not in _WRITERS:
        raise argparse.ArgumentTypeError(f"{text}: a picture ends in {', '.join(_WRITERS)}")
    return text


def _owners(machine: Microvmi) -> list[Owner]:
    try:
        return owners(machine)
    except MicrovmiError as err:
        kit.say(f"whose pages they are is not known: {told(err)}")
        return []


def _document(picture: Picture, files: list[str]) -> dict[str, object]:
    return {
        "size": picture.size,
        "page": picture.cell,
        "files": files,
        "totals": {content.name.lower(): count for content, count in picture.totals().items()},
        "runs": [
            {
                "start": hex(run.first * picture.cell),
                "size": run.length * picture.cell,
                "content": run.content.name.lower(),
            }
            for run in picture.runs()
        ],
        "owners": [{"start": hex(owner.start), "size": owner.size, "owner": owner.name} for owner in picture.owners],
    }


def _lines(picture: Picture) -> Iterator[str]:
    rows = [
        (content.name.lower(), amount(count), share(count, picture.size), LOOKS[content].meaning)
        for content, count in picture.totals().items()
    ]
    yield from kit.table([("content", "size", "share", ""), *rows], right=(1, 2))
