# SPDX-License-Identifier: Apache-2.0
"""The symbol file of a guest's kernel: made once, then kept under what it was made of.

The name has the kernel's build id and a sum over all that the guest told: a guest that takes another's build id gets
a file of its own. volatility finds files by the kernel's banner, which a guest may take from another as well; so what
is kept is only handed to runs on this guest, unless the user has it installed where volatility looks by itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from libmicrovmi_py.errors import AccessError
from libmicrovmi_py.linux.kernel import Kernel
from libmicrovmi_py.tools.cache import keep, kept, private_folder, user_cache
from libmicrovmi_py.tools.volatility import isf
from libmicrovmi_py.version import __version__

_EDITION = "1"
"""Another one whenever the same kernel is written differently."""

_TOP = 1 << 63
"""Addresses of the kernel are above; below are those of a vCPU's own variables, which are counted from 0."""

FILE = "linux.json"

_LONGEST_BUILD_ID = 64
"""Of its digits as many get into a file's name: a guest may tell thousands."""


def symbol_file(kernel: Kernel) -> Path:
    """The path of the symbol file, alone in its folder; it is made if it is not there.

    Raises ``NotSupportedError`` for a kernel that does not tell its types, ``IoError`` for one that tells what cannot
    be, ``PermissionDeniedError`` for a cache that others could change.
    """
    types = kernel.known_types()
    symbols = list(_symbols(kernel))
    banner = _banner(kernel)
    folder = private_folder(user_cache() / "libmicrovmi" / "volatility" / _name(kernel, symbols, banner))
    path = folder / FILE
    if not kept(path):
        content = isf.symbol_file(types, symbols, banner, kernel.release)
        keep(path, json.dumps(content, separators=(",", ":")).encode())
    return path


def install(kernel: Kernel) -> Path:
    """Put the symbol file where volatility finds it without being told; the path there.

    Raises ``AccessError`` if there is one of another guest, whose kernel has the same banner.
    """
    content = symbol_file(kernel).read_bytes()
    folder = private_folder(user_cache() / "volatility3" / "symbols" / "linux")
    path = folder / f"microvmi-{hashlib.sha256(_banner(kernel)).hexdigest()[:16]}.json"
    if not kept(path):
        keep(path, content)
    elif path.read_bytes() != content:
        raise AccessError(f"{path} is of another guest whose kernel has the same name: remove it to have this one's")
    return path


def _symbols(kernel: Kernel) -> Iterator[tuple[int, str]]:
    """Addresses and names, as they were before the kernel was moved."""
    moved = kernel.kaslr_offset
    for address, _, name in kernel.symbols:
        yield (address - moved if address >= _TOP else address), name


def _banner(kernel: Kernel) -> bytes:
    """All of the banner, with the end of its line and the zero behind it."""
    return kernel.text(kernel.symbols.address("linux_banner")) + b"\0"


def _name(kernel: Kernel, symbols: list[tuple[int, str]], banner: bytes) -> str:
    total = hashlib.sha256(f"{_EDITION} {__version__}\n".encode() + banner + (kernel.btf or b""))
    total.update("\n".join([f"{address:x} {name}" for address, name in symbols]).encode("utf-8", "replace"))
    build_id = (kernel.build_id or "")[:_LONGEST_BUILD_ID]
    return f"{build_id if build_id.isascii() and build_id.isalnum() else ''}-{total.hexdigest()[:32]}".lstrip("-")
