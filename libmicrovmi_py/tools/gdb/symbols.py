# SPDX-License-Identifier: Apache-2.0
"""A symbol file of a Linux guest that runs, made of nothing but its memory: names at the addresses they now have."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from libmicrovmi_py.errors import IoError, MicrovmiError, NotSupportedError, VmGoneError
from libmicrovmi_py.tools.cache import keep, kept, private_folder, user_cache
from libmicrovmi_py.tools.gdb import prologues, unwind
from libmicrovmi_py.tools.gdb.elf import Section, Symbol, file_of_symbols
from libmicrovmi_py.tools.gdb.unwind import KernelImage

_NAME = re.compile(r"[A-Za-z_$.][\w$.]{0,511}", re.ASCII)
"""What a compiler calls things; a guest may call its symbols anything."""

_KEPT = 4
"""Files that are kept; each kernel, and each place that it is moved to, has one of its own."""

_FORMAT = b"1"
"""Part of the names of files: another one where they would be made in another way."""


def symbol_file(kernel: KernelImage) -> Path:
    """The file for a kernel, as it lies in memory now, in a folder that is the user's alone.

    It is made in about two seconds, and found again by what it is made of. Raises ``NotSupportedError`` for a kernel
    whose symbols do not tell where it is, ``IoError`` where the file cannot be written,
    ``PermissionDeniedError`` where others could change it, and what reading memory raises.
    """
    sections, symbols = _sections(kernel), _symbols(kernel)
    name = hashlib.sha256(_FORMAT + f"{kernel.release} {sections} {symbols}".encode()).hexdigest()[:32]
    folder = private_folder(user_cache() / "libmicrovmi" / "gdb")  # a debugger believes what is in a symbol file
    path = folder / f"{name}.elf"
    if not kept(path):
        content = file_of_symbols(kernel.architecture, sections, symbols, _frames(kernel))
        _write(path, content)
        _drop_old(folder)
    with suppress(OSError):
        os.utime(path)
    return path


def _sections(kernel: KernelImage) -> list[Section]:
    """The image: code, and what is around it."""
    get = kernel.symbols.get
    start, end = get("_text") or get("_stext"), get("_end") or get("_einittext")  # some kernels name code only
    if not start or not end or not start < end:
        raise NotSupportedError(f"the kernel {kernel.release} does not tell where it begins and ends")
    found: list[Section] = []
    at = start
    for name, first, last in ((".text", "_stext", "_etext"), (".init.text", "_sinittext", "_einittext")):
        low, high = get(first), get(last)
        if low and high and at <= low < high <= end:
            found += [Section(f".data{len(found)}", at, low, code=False), Section(name, low, high, code=True)]
            at = high
    found.append(Section(".data", at, end, code=False))
    return [section for section in found if section.start < section.end]


def _symbols(kernel: KernelImage) -> list[Symbol]:
    return sorted(Symbol(*item) for item in kernel.symbols if _NAME.fullmatch(item[2]))


def _frames(kernel: KernelImage) -> dict[str, bytes]:
    """How frames are undone, if the kernel tells: without, there are symbols all the same."""
    try:
        content = unwind.debug_frame(kernel) if kernel.architecture == "x86_64" else _chained(kernel)
    except VmGoneError:
        raise
    except MicrovmiError:
        content = b""
    return {".debug_frame": content} if content else {}


def _chained(kernel: KernelImage) -> bytes:
    """That of AArch64, but for the code of the kernel's start, which is not there any more."""
    start, end = kernel.symbols.get("_stext") or 0, kernel.symbols.get("_etext") or 0
    if not 0 < end - start <= prologues.LONGEST_TEXT:
        return b""
    functions = {item.address: item.name for item in _symbols(kernel) if start <= item.address < end}
    return prologues.frames(kernel.space.read_virtual(start, end - start), start, sorted(functions.items()))


def _write(path: Path, content: bytes) -> None:
    try:
        keep(path, content)
    except OSError as err:
        raise IoError(f"the symbols cannot be written to {path}: {err.strerror or err}") from err


def _drop_old(folder: Path) -> None:
    with suppress(OSError):
        for path in sorted(_files(folder), reverse=True)[_KEPT:]:
            path[1].unlink()


def _files(folder: Path) -> Iterator[tuple[float, Path]]:
    for path in folder.glob("*.elf"):
        yield path.stat().st_mtime, path
