# SPDX-License-Identifier: Apache-2.0
"""QEMUs that hold firmware only, with monitors of every kind: up in less than a second, ended with the test."""

from __future__ import annotations

import functools
import itertools
import os
import random
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from needs import missing

from .guest import QEMU

SECONDS = 20.0

_numbers = itertools.count(1)


@contextmanager
def open_folder() -> Iterator[Path]:
    """A directory with a short name that every user can enter and write: pytest closes its own to others."""
    with tempfile.TemporaryDirectory(prefix="microvmi-") as name:
        os.chmod(name, 0o777)
        yield Path(name)


def need_qemu() -> str:
    """The path of QEMU; without one the test ends here."""
    return shutil.which(QEMU) or missing(f"no firmware guest: {QEMU} is not installed: apt-get install qemu-system-x86")


@functools.cache
def qemu_version() -> tuple[int, int]:
    """Major and minor."""
    text = subprocess.run([need_qemu(), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"version ([0-9]+)\.([0-9]+)", text)
    assert found, text
    return int(found[1]), int(found[2])


def need_root(what: str) -> None:
    """End the test unless root runs it."""
    if os.geteuid() != 0:
        missing(f"{what} takes root: run the tests as root")


def new_name(base: str = "firmware") -> str:
    """A name that no other machine of this host has."""
    return f"{base}-{os.getpid()}-{next(_numbers)}"


class Firmware:
    """A running QEMU, with a human monitor for the test beside the monitors that the test is about."""

    def __init__(self, folder: Path, name: str, process: subprocess.Popen[bytes] | None) -> None:
        self.folder = folder
        self.name = name
        self.process = process
        self.human_monitor = folder / f"human{next(_numbers)}"

    @property
    def pid(self) -> int:
        """The process id."""
        assert self.process is not None
        return self.process.pid

    def human(self, line: str) -> str:
        """Run one line of the human monitor; its text, with the echo of the line before it."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(SECONDS)
            sock.connect(str(self.human_monitor))
            _until_prompt(sock)
            sock.sendall(line.encode() + b"\n")
            return _until_prompt(sock)

    def quit(self) -> None:
        """End it from within, which reaches it behind any program that started it."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self.human_monitor))
            _until_prompt(sock)
            sock.sendall(b"quit\n")
            while sock.recv(4096):
                pass

    def runs(self) -> bool:
        """Whether the guest runs, by QEMU's own word."""
        return "VM status: running" in self.human("info status")


def _until_prompt(sock: socket.socket) -> str:
    text = b""
    while not text.endswith(b"(qemu) "):
        text += sock.recv(4096) or pytest.fail(f"the human monitor hung up after {text!r}")
    return text.decode(errors="replace")


@contextmanager
def firmware(
    folder: Path,
    *options: str,
    name: str | None = None,
    mib: int = 64,
    around: Sequence[str] = (),
    program: str = "",
    human: bool = True,
    **more: Any,
) -> Iterator[Firmware]:
    """Start QEMU with ``options`` in ``folder``; it runs its firmware unless they have ``-S``.

    ``name=""`` leaves ``-name`` out, ``human=False`` the test's monitor, ``mib=0`` the size of the memory. ``around``
    are programs that start QEMU, ``program`` is a QEMU of another name. ``more`` goes to ``Popen``.
    """
    name = new_name() if name is None else name
    command = [*around, program or need_qemu(), *(("-name", name) if name else ())]
    command += ["-accel", "tcg", "-display", "none", "-net", "none", *(("-m", f"{mib}M") if mib else ())]
    with open(folder / "log", "ab") as log, ExitStack() as stack:
        guest = Firmware(folder, name, None)
        command += ["-monitor", f"unix:{guest.human_monitor},server=on,wait=off" if human else "none"]
        more = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "cwd": folder, **more}
        guest.process = subprocess.Popen([*command, *options], **more)
        stack.callback(_end, guest.process)
        if human:
            wait_for(lambda: _answers(guest), guest.process)
        yield guest


def _answers(guest: Firmware) -> bool:
    """Whether its monitor answers, which it does when all sockets are there."""
    try:
        return bool(guest.human("info status"))
    except (FileNotFoundError, ConnectionRefusedError):
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def wait_for(condition: Callable[[], object], process: subprocess.Popen[bytes] | None = None) -> None:
    """Wait until ``condition`` holds; an error if it does not within 20 s, or ``process`` ends before."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        if process is not None and process.poll() is not None:
            pytest.fail(f"{process.args!r} ended with {process.returncode}")
        if time.monotonic() > deadline:
            pytest.fail(f"not within {SECONDS} s")
        time.sleep(0.02)


def free_ports(count: int) -> int:
    """The first of so many TCP ports in a row that nobody uses at present, and that the system gives to nobody."""
    while True:
        first = random.randrange(20000, 30000)
        try:
            for port in range(first, first + count):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return first


def _listening() -> Iterator[tuple[int, str]]:
    """Port and inode of every TCP socket of this host that listens."""
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                yield int(fields[1].rpartition(":")[2], 16), fields[9]


def listens(port: int) -> bool:
    """Whether somebody listens on that port of this host, without a connection that would tell."""
    return any(number == port for number, _ in _listening())


def ports_of(pid: int) -> list[int]:
    """The ports on which a process listens."""
    links = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}
    return [port for port, inode in _listening() if f"socket:[{inode}]" in links]
