# SPDX-License-Identifier: Apache-2.0
"""A process that has memory as a virtual machine monitor has it, and does nothing else. Started by tests.

It is no such program: a copy of Python bears its name, and gets its command line. ``MAPPINGS`` is what it maps, as in
``private:0x1000000 memfd:0x2000000:0x1000000``: the kind (``private``, ``memfd``, or ``file`` for a private mapping
of a file), the size, and for a shared file where in it the mapping begins. ``loose:`` in front leaves out the page of
no access behind it, ``sparse:`` writes the first number of the mapping only. Every 64 KiB of all mappings together
begin with their number, 8 bytes in little-endian. At SIGUSR1 it gives all of it back and says ``lost``.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
import time

STEP = 64 * 1024
PAGE = 4096
LASTS = 600
"""Seconds until it ends by itself, if nobody ended it."""

NONE, READ_WRITE = 0, mmap.PROT_READ | mmap.PROT_WRITE
FIXED, NORESERVE = 0x10, 0x4000

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)


def map_at(address: int, size: int, protection: int, flags: int, fd: int = -1, offset: int = 0) -> int:
    """``mmap()``."""
    found = libc.mmap(address, size, protection, flags | NORESERVE, fd, offset)
    assert found not in (None, ctypes.c_void_p(-1).value), os.strerror(ctypes.get_errno())
    return int(found)


placed: list[tuple[int, int]] = []
"""Where it has mapped what, and how much."""


def place(text: str, shared: int, number: int) -> int:
    """Map what ``text`` says and write numbers from ``number`` on into it; the next number."""
    word, _, rest = text.partition(":")
    kind, *numbers = (rest if word in ("loose", "sparse") else text).split(":")
    size, offset = (int(item, 16) for item in [*numbers, "0"][:2])
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    start = map_at(0, size + 2 * PAGE, NONE, private) + PAGE
    flags, fd = FIXED | private, -1
    if kind != "private":
        flags, fd = FIXED | (mmap.MAP_SHARED if kind == "memfd" else mmap.MAP_PRIVATE), shared
        os.truncate(fd, max(os.fstat(fd).st_size, offset + size))
    map_at(start, size, READ_WRITE, flags, fd, offset)
    placed.append((start, size))
    if word == "loose":
        libc.munmap(ctypes.c_void_p(start + size), ctypes.c_size_t(PAGE))
    for done in range(0, STEP if word == "sparse" else size, STEP):
        ctypes.memmove(start + done, number.to_bytes(8, "little"), 8)
        number += 1
    return number


def lose(*_: object) -> None:
    for start, size in placed:
        libc.munmap(ctypes.c_void_p(start), ctypes.c_size_t(size))
    say("lost")


def say(word: str) -> None:
    os.write(sys.stdout.fileno(), f"{word}\n".encode())  # of a signal handler, too


def main() -> None:
    number, shared = 0, os.memfd_create("guest_mem")
    for text in os.environ["MAPPINGS"].split():
        number = place(text, shared, number)
    signal.signal(signal.SIGUSR1, lose)
    say("ready")
    end = time.monotonic() + LASTS
    while time.monotonic() < end:
        time.sleep(1)


if __name__ == "__main__":
    main()
