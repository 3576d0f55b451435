# SPDX-License-Identifier: Apache-2.0
"""Guests of a few bytes: firmware of our own that waits for a byte in memory and then does one thing. Up at once."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .guest import QEMU
from .monitor import Monitor, MonitorError

GO = 0x500
"""Guest-physical address of the byte that the firmware waits for."""

SECONDS = 20.0

_numbers = itertools.count()


def out8(port: int, value: int) -> bytes:
    return b"\xba" + port.to_bytes(2, "little") + b"\xb0" + bytes([value]) + b"\xee"


def _out16(port: int, value: int) -> bytes:
    return b"\xba" + port.to_bytes(2, "little") + b"\xb8" + value.to_bytes(2, "little") + b"\xef"


def out32(port: int, value: int) -> bytes:
    return b"\xba" + port.to_bytes(2, "little") + b"\x66\xb8" + value.to_bytes(4, "little") + b"\x66\xef"


def _power(kind: int) -> bytes:
    """Enable the power management of a pc at port 0x600, and ask for a state: 0 is off, 1 sleep."""
    base = out32(0xCF8, 0x80000B40) + out32(0xCFC, 0x601) + out32(0xCF8, 0x80000B80) + out8(0xCFC, 1)
    return base + _out16(0x604, 0x2000 | kind << 10)


_WRITE_A_SECTOR = (
    b"".join(out8(0x1F2 + index, value) for index, value in enumerate((1, 1, 0, 0, 0xE0, 0x30)))
    + b"\xb9\x00\x01\xba\xf0\x01\xef\xe2\xfd"  # 256 words to the data port
)

NOTHING, SLEEP, OFF = b"", _power(1), _power(0)
PANIC, WATCHDOG, WRITE = out8(0x505, 1), out8(0x443, 0x0F), _WRITE_A_SECTOR


def firmware(act: bytes) -> bytes:
    """64 KiB that end at 4 GiB: wait until the byte at ``GO`` is not 0, do ``act``, loop."""
    wait = b"\x31\xc0\x8e\xd8\x80\x3e\x00\x05\x00\x74\xf9"  # xor ax, ax; mov ds, ax; cmp byte [0x500], 0; je
    code = wait + act + b"\xeb\xfe"
    image = bytearray(code.ljust(0x10000, b"\xf4"))
    image[0xFFF0:0xFFF5] = b"\xea\x00\x00\x00\xf0"  # jmp 0xf000:0
    return bytes(image)


class Tiny:
    """A running one. ``monitor`` is for the tests; the library has a monitor of its own, by ``other_uri`` theirs."""

    def __init__(self, process: subprocess.Popen[bytes], name: str, folder: Path) -> None:
        self.process = process
        self.name = name
        self.monitor = Monitor(folder / f"{name}.tests")
        self.gdb = folder / f"{name}.gdb"
        self.uri = f"vmi://qemu/?vm_name={name}&qmp={folder / name}&timeout=5"
        self.other_uri = f"vmi://qemu/?vm_name={name}&qmp={folder / name}.tests&timeout=5"

    def status(self) -> str:
        """The run state, as QEMU tells it."""
        return self.monitor.status()

    def until(self, *statuses: str) -> None:
        """Wait for one of these run states."""
        wait_for(lambda: self.status() in statuses, f"{statuses}")


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Fail if it does not come about in time."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"no sign of {what} within {SECONDS:g} s"
        time.sleep(0.01)


@contextmanager
def tiny(
    folder: Path,
    act: bytes = NOTHING,
    options: Sequence[str] = (),
    *,
    debugger: bool = True,
    accelerator: str = "tcg",
    program: str = QEMU,
    name: str = "",
) -> Iterator[Tiny]:
    """Start one: 16 MiB, a pc. ``debugger``: QEMU waits for one at ``gdb``. ``name``: instead of one of its own."""
    name = name or f"tiny-{os.getpid()}-{next(_numbers)}"
    image = folder / f"{name}.firmware"
    image.write_bytes(firmware(act))
    wrapper = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    command = [
        *(*wrapper, program, "-name", name, "-accel", accelerator, "-machine", "pc", "-m", "16M", "-bios", str(image)),
        *("-nodefaults", "-display", "none"),
        *(("-gdb", f"unix:{folder / name}.gdb,server=on,wait=off") if debugger else ()),
        *(
            part
            for path in (f"{name}", f"{name}.tests")
            for part in ("-qmp", f"unix:{folder / path},server=on,wait=off")
        ),
        *options,
    ]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    guest = Tiny(process, name, folder)
    try:
        wait_for(lambda: process.poll() is not None or _answers(guest.monitor), "its monitor")
        assert process.poll() is None
        yield guest
    finally:
        process.kill()
        process.wait()


def _answers(monitor: Monitor) -> bool:
    try:
        monitor.status()
    except (OSError, MonitorError):
        return False
    return True


def step(guest: Tiny) -> socket.socket:
    """Be a debugger that lets the machine do one step: it then stands in the state debug. The connection stays open."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(SECONDS)
    client.connect(str(guest.gdb))
    client.sendall(b"+$s#73")
    guest.until("debug")
    return client
