# SPDX-License-Identifier: Apache-2.0
"""Memory into files: ``dump`` and ``snapshot`` are made of this."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from libmicrovmi_py.command import kit
from libmicrovmi_py.command.ending import Ended
from libmicrovmi_py.command.meter import amount
from libmicrovmi_py.command.partial import ENDING, Partial, Subject, check_free
from libmicrovmi_py.declare import TYPE_CHECKING, NamedTuple
from libmicrovmi_py.errors import MicrovmiError, told
from libmicrovmi_py.export import Layout, elf, lime, raw
from libmicrovmi_py.machine.microvmi import Microvmi

if TYPE_CHECKING:
    from libmicrovmi_py.linux.kernel import Kernel

FORMATS = ("raw", "lime", "elf")
_ENDINGS = {".raw": "raw", ".lime": "lime", ".elf": "elf", ".core": "elf"}
STANDARD_OUTPUT = "-"

_STEP = 1 << 20
"""Bytes that are read at once."""

_PAGE = 4096
_ZEROS = bytes(_STEP)
_EMPTY = bytes(_PAGE)


class Written(NamedTuple):
    """What was written: bytes of the file, bytes that are not zeros by whole pages, and seconds."""

    size: int
    data: int
    seconds: float


def file_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """Have ``FILE``, ``--format`` and ``--force``; ``default`` is the format where neither these nor the name tell."""
    parser.set_defaults(default_format=default)
    parser.add_argument("file", metavar="FILE", help="the file, or - for standard output")
    text = "raw: byte N is at address N; lime: the ranges that exist; elf: with registers; if it is not given, "
    text += f"FILE's ending tells it (.raw, .lime, .elf, .core), else {default}"
    parser.add_argument("-f", "--format", choices=FORMATS, help=text)
    parser.add_argument(
        "--force", action="store_true", help="replace a file that is there, and what an earlier run left"
    )


def format_of(options: argparse.Namespace) -> str:
    """The format that was asked for, or that the file's name tells."""
    ending = os.path.splitext(options.file)[1]
    return str(options.format or _ENDINGS.get(ending.lower()) or options.default_format)


def layout_of(machine: Microvmi, format: str) -> Layout:
    """The file that is to be written."""
    if format == "elf":
        return elf(machine, _kernel(machine))
    return raw(machine) if format == "raw" else lime(machine)


def _kernel(machine: Microvmi) -> Kernel | None:
    """The guest's kernel, whose VMCOREINFO and text an ELF core has; ``None`` where none is found."""
    from libmicrovmi_py.linux.kernel import Kernel

    try:
        return Kernel.find(machine)
    except MicrovmiError as err:
        kit.say(f"the core has no VMCOREINFO: {told(err)}")
        return None


# ------------------------------------------------------------------------------------------------------- a file ----


def subject_of(machine: Microvmi, layout: Layout, format: str, *, instant: bool) -> Subject:
    """What the file is of."""
    places = [(item.offset, item.size, item.content is None, item.address) for item in layout.segments]
    identity = machine.driver.identity
    machine_word = f"{machine.driver.name}: {identity}, boot {_boot()}" if identity else ""
    return Subject(machine_word, format, hashlib.sha256(repr(places).encode()).hexdigest(), layout.size, instant)


def _boot() -> str:
    """What this host's run is called by its kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def to_file(layout: Layout, path: str, subject: Subject, *, resume: bool = False, force: bool = False) -> Written:
    """Write the file; what is interrupted leaves what another run can go on with, or nothing."""
    begin = time.monotonic()
    with _named(path), Partial(path, subject, resume=resume, force=force) as partial:
        try:
            with kit.progress(layout.size, os.path.basename(path)) as report:
                data = _written(layout, partial, report)
        except (Ended, MicrovmiError, OSError):
            _leave(partial)
            raise
    return Written(layout.size, data, time.monotonic() - begin)


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Errors of writing tell where that was."""
    try:
        yield
    except OSError as err:
        if err.filename is None and not isinstance(err, MicrovmiError):
            err.filename = path
        raise


def _leave(partial: Partial) -> None:
    """Note how far it is, and say what another run can do."""
    if partial.resumable:
        partial.note(partial.done)
        name = partial.path + ENDING
        kit.say(f"{name} has {amount(partial.done)} of {amount(partial.subject.size)}: --resume goes on with it")


def _written(layout: Layout, partial: Partial, report: Callable[[int], None]) -> int:
    """Write what is not zeros; the file has zeros where nothing is written. Returns how many bytes that were."""
    data = 0
    report(partial.done)
    for offset, piece in _pieces(layout, partial.done):
        for start, end in _filled(piece):
            _write_at(partial.number, piece[start:end], offset + start)
            data += end - start
        partial.reached(offset + len(piece))
        report(partial.done)
    return data


def _write_at(number: int, view: memoryview, offset: int) -> None:
    while view:
        done = os.pwrite(number, view, offset)
        view, offset = view[done:], offset + done


def _pieces(layout: Layout, offset: int) -> Iterator[tuple[int, memoryview]]:
    """(offset, bytes) of what may hold something. A piece is good until the next one is asked for."""
    buffer = memoryview(bytearray(_STEP))
    for extent in layout.extents(offset):
        for start in range(extent.offset, extent.offset + extent.size, _STEP) if not extent.hole else ():
            piece = buffer[: min(_STEP, extent.offset + extent.size - start)]
            layout.read_into(start, piece)
            yield start, piece


def _filled(piece: memoryview) -> Iterator[tuple[int, int]]:
    """(start, end) of the pages that are not zeros, neighbours together; the piece is where its buffer begins."""
    buffer, size = piece.obj, len(piece)
    assert isinstance(buffer, bytearray)  # which compares by memcmp(), without a copy
    begin: int | None = None
    for start in range(0, size, _PAGE):
        if not buffer.startswith(_EMPTY[: size - start], start):
            begin = start if begin is None else begin
        elif begin is not None:
            yield begin, start
            begin = None
    if begin is not None:
        yield begin, size


# ------------------------------------------------------------------------------------------------------- a pipe ----


def is_stream(path: str) -> bool:
    """Whether bytes go there one after the other: standard output, a pipe, a device."""
    return path == STANDARD_OUTPUT or (os.path.exists(path) and not os.path.isfile(path))


def checked(options: argparse.Namespace) -> bool:
    """Settle the format, and see before anything is read that ``FILE`` can be written; whether it is a stream.

    Raises :class:`kit.Failure`: for a file that is there, for standard output that is a terminal, or is wanted twice.
    """
    options.format = format_of(options)
    stream = is_stream(options.file)
    if not stream:
        check_free(options.file, force=options.force)
    elif options.file == STANDARD_OUTPUT and options.json:
        raise kit.Failure("--json wants standard output as well: name a file", 2)
    elif options.file == STANDARD_OUTPUT and sys.stdout.isatty():
        raise kit.Failure("standard output is a terminal: name a file, or a pipe")
    return stream


def to_stream(layout: Layout, path: str) -> Written:
    """Write all bytes, zeros included, to a pipe or a device."""
    begin = time.monotonic()
    if path == STANDARD_OUTPUT:
        data = _streamed(layout, 1)
    else:
        with _named(path), open(path, "wb", buffering=0) as file:
            data = _streamed(layout, file.fileno())
    return Written(layout.size, data, time.monotonic() - begin)


def _streamed(layout: Layout, number: int) -> int:
    at = data = 0
    with kit.progress(layout.size, "dump") as report:
        for offset, piece in _pieces(layout, 0):
            _zeros(number, offset - at)
            _write_all(number, piece)
            at, data = offset + len(piece), data + len(piece)
            report(at)
        _zeros(number, layout.size - at)
    return data


def _zeros(number: int, count: int) -> None:
    view = memoryview(_ZEROS)
    while count > 0:
        _write_all(number, view[:count])
        count -= len(view)


def _write_all(number: int, view: memoryview) -> None:
    while view:
        view = view[os.write(number, view) :]
