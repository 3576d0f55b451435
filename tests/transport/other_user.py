# SPDX-License-Identifier: Apache-2.0
"""Processes of another user for tests: they map what they can, and keep it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from needs import missing

from libmicrovmi_py.transport.processes import Process

NOBODY = 65534

_MAPPER = """
import ctypes, os, sys
os.setgroups([]); os.setresgid({user}, {user}, {user}); os.setresuid({user}, {user}, {user})
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
path, flags, protection, sharing, size = sys.argv[1], *map(int, sys.argv[2:])
fd = os.open(path, flags)
print(libc.mmap(None, size, protection, sharing, fd, 0), flush=True)
sys.stdin.read()
"""


def need_root() -> None:
    """End the test where this process cannot become somebody else."""
    if os.getuid() != 0:
        missing("acts as another user; to enable: run as root")


@contextmanager
def mapping(path: object, flags: int, protection: int, sharing: int, size: int) -> Iterator[tuple[Process, int]]:
    """A process of user ``NOBODY`` that opened a file with ``flags`` and mapped it; with the address."""
    need_root()
    arguments = [str(path), *map(str, (flags, protection, sharing, size))]
    command = [sys.executable, "-c", _MAPPER.format(user=NOBODY), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        address = int(child.stdout.readline())
        process = Process.find(child.pid)
        assert process is not None
        try:
            yield process, address
        finally:
            child.kill()


def run_as_nobody(program: str) -> str:
    """What a Python program prints that becomes ``NOBODY`` after it has imported what it needs.

    It has ``become_nobody()`` to call.
    """
    need_root()
    head = (
        "import os, sys\n"
        f"def become_nobody(): os.setgroups([]); os.setresgid(*[{NOBODY}] * 3); os.setresuid(*[{NOBODY}] * 3)\n"
    )
    done = subprocess.run([sys.executable, "-c", head + program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
