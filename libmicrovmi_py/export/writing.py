# SPDX-License-Identifier: Apache-2.0
"""A machine's memory into a file, or into a pipe, in any format."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from libmicrovmi_py.declare import TYPE_CHECKING, NamedTuple
from libmicrovmi_py.errors import InvalidArgumentError, MicrovmiError, told
from libmicrovmi_py.export.elf import elf
from libmicrovmi_py.export.flattened import Flattened
from libmicrovmi_py.export.kdump import Kdump
from libmicrovmi_py.export.layout import Layout, filled, pieces
from libmicrovmi_py.export.partial import Partial, Subject, Words
from libmicrovmi_py.export.plain import lime, raw
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.transport.fds import StandardStreamsHeld

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from libmicrovmi_py.linux.kernel import Kernel

FORMATS = ("raw", "lime", "elf", "kdump-zlib", "kdump-zstd")
_ENDINGS = {".raw": "raw", ".lime": "lime", ".elf": "elf", ".core": "elf", ".kdump": "kdump-zlib"}
_ZEROS = memoryview(bytes(1 << 20))

Report = Callable[[int, int], object]
"""Is told how much is done and how much is to be done, in bytes; what it raises ends the work."""
Say = Callable[[str], object]
"""Is told, in a line, what a user should know."""


class Written(NamedTuple):
    """What was written: bytes of the file, bytes of memory that are not zeros by whole pages, and seconds."""

    size: int
    data: int
    seconds: float


class How(NamedTuple):
    """``format`` is one of :data:`FORMATS`; ``instant``: the machine is of one moment; the others as ``Partial``'s."""

    format: str
    instant: bool
    resume: bool = False
    replace: bool = False
    words: Words = Words()


def format_of(path: str, default: str) -> str:
    """The format that a file's name tells."""
    return _ENDINGS.get(os.path.splitext(path)[1].lower(), default)


def is_stream(path: str) -> bool:
    """Whether bytes go there one after the other: a pipe, a device."""
    return os.path.exists(path) and not os.path.isfile(path)


def write(machine: Microvmi, path: str, how: How, report: Report, say: Say) -> Written:
    """Write the file, or into the pipe or device of that name; ``say`` is told what is left out, and what an error
    leaves.

    Raises ``InvalidArgumentError`` for what is in the way, ``OSError`` with the file's name, and what reading raises.
    """
    begin = time.monotonic()
    with _named(path):
        if is_stream(path):
            with StandardStreamsHeld():
                number = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                size, data = _streamed(_content(machine, how.format, say), number, report)
            finally:
                os.close(number)
        else:
            size, data = _kept(machine, path, how, report, say)
    return Written(size, data, time.monotonic() - begin)


def write_stream(machine: Microvmi, number: int, format: str, report: Report, say: Say) -> Written:
    """As :func:`write`, to a descriptor."""
    begin = time.monotonic()
    size, data = _streamed(_content(machine, format, say), number, report)
    return Written(size, data, time.monotonic() - begin)


def _content(machine: Microvmi, format: str, say: Say) -> Layout | Kdump:
    """The file that is to be written."""
    if format == "raw":
        return raw(machine)
    if format == "lime":
        return lime(machine)
    if format not in FORMATS:
        raise InvalidArgumentError(f"the format {format!r} is not known: {', '.join(FORMATS)} are")
    kernel = _kernel(machine, say)
    return elf(machine, kernel) if format == "elf" else Kdump(machine, format.removeprefix("kdump-"), kernel)


def _kernel(machine: Microvmi, say: Say) -> Kernel | None:
    """The guest's kernel, whose VMCOREINFO the file has; ``None`` where none is found."""
    with StandardStreamsHeld():
        from libmicrovmi_py.linux.kernel import Kernel  # files without registers need none

    try:
        return Kernel.find(machine)
    except MicrovmiError as err:
        say(f"the core has no VMCOREINFO: {told(err)}")
        return None


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Errors of writing tell where that was."""
    try:
        yield
    except OSError as err:
        if err.filename is None and not isinstance(err, MicrovmiError):
            err.filename = path
        raise


# ------------------------------------------------------------------------------------------------------- a file ----


def _kept(machine: Microvmi, path: str, how: How, report: Report, say: Say) -> tuple[int, int]:
    """Write the file; what is interrupted leaves what another run can go on with, or nothing."""
    content = _content(machine, how.format, say)
    with Partial(path, _subject(machine, content, how), how.words, resume=how.resume, replace=how.replace) as partial:
        try:
            if isinstance(content, Layout):
                return content.size, _sparse(content, partial, report)
            partial.size, data = content.write(partial.put, lambda done: report(done, content.memory), holes=True)
            return partial.size, data
        except BaseException:
            if partial.resumable:
                say(partial.left())
            raise


def _subject(machine: Microvmi, content: Layout | Kdump, how: How) -> Subject:
    """What the file is of. A kdump file is not gone on with: what is in it is told at its end."""
    if isinstance(content, Kdump):
        return Subject("", how.format, "", content.limit, True)
    places = [(item.offset, item.size, item.content is None, item.address) for item in content.segments]
    identity = machine.driver.identity
    machine_word = f"{machine.driver.name}: {identity}, boot {_boot()}" if identity else ""
    digest = hashlib.sha256(repr(places).encode()).hexdigest()
    return Subject(machine_word, how.format, digest, content.size, how.instant)


def _boot() -> str:
    """What this host's run is called by its kernel."""
    with StandardStreamsHeld():
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _sparse(layout: Layout, partial: Partial, report: Report) -> int:
    """Write what is not zeros; the file has zeros where nothing is written. Returns how many bytes that were."""
    data = 0
    report(partial.done, layout.size)
    for offset, piece in pieces(layout, layout.extents(partial.done)):
        for start, end in filled(piece):
            partial.put(offset + start, piece[start:end])
            data += end - start
        partial.reached(offset + len(piece))
        report(partial.done, layout.size)
    return data


# ------------------------------------------------------------------------------------------------------- a pipe ----


def _streamed(content: Layout | Kdump, number: int, report: Report) -> tuple[int, int]:
    """Write all bytes, zeros included, one after the other; a kdump file is flattened."""
    if isinstance(content, Layout):
        return content.size, _in_order(content, number, report)
    stream = Flattened(lambda piece: _write_all(number, piece))
    found = content.write(stream.put, lambda done: report(done, content.memory), holes=False)
    stream.end()
    return found


def _in_order(layout: Layout, number: int, report: Report) -> int:
    at = data = 0
    for offset, piece in pieces(layout, layout.extents()):
        _zeros(number, offset - at)
        _write_all(number, piece)
        at, data = offset + len(piece), data + len(piece)
        report(at, layout.size)
    _zeros(number, layout.size - at)
    return data


def _zeros(number: int, count: int) -> None:
    while count > 0:
        _write_all(number, _ZEROS[:count])
        count -= len(_ZEROS)


def _write_all(number: int, content: ReadableBuffer) -> None:
    view = memoryview(content).cast("B")
    while view:
        view = view[os.write(number, view) :]
