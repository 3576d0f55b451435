# SPDX-License-Identifier: Apache-2.0
"""One QEMU process with a Debian kernel in it, in every configuration the tests ask for."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from . import initramfs, packages
from .monitor import Monitor, MonitorError

QEMU = "qemu-system-x86_64"
QEMU_ARM64 = "qemu-system-aarch64"
MIB = 1 << 20
VCPUS = 2
BOOT_SECONDS = (60.0, 120.0)
"""How long the first boot may take, and another one, should the first come to no end."""
SOCKET_SECONDS = 20.0

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Config:
    """How a guest is built: kind of RAM (``private``, ``file``, ``deleted``, ``memfd``), MiB of RAM, machine type.

    ``cpu`` is QEMU's word for one, empty for what it takes by itself; ``line`` is for the kernel.
    """

    ram: str = "private"
    mib: int = 512
    machine: str = "pc"
    cpu: str = ""
    line: str = "nokaslr"

    def __str__(self) -> str:
        return f"{self.ram}-{self.mib}M-{self.machine}"

    @property
    def size(self) -> int:
        """Bytes of RAM."""
        return self.mib * MIB


@dataclass(frozen=True)
class Boot:
    """The kernel and the initramfs that guests boot, the QEMU that has such processors, and its serial console."""

    kernel: Path
    initrd: Path
    program: str = QEMU
    console: str = "ttyS0"


class Guest:
    """A running guest, from ``with Guest(config, boot) as guest`` on until the end of the block.

    Without ``boot`` there is firmware only: enough for what needs no kernel, and up at once. ``name`` gives another
    than the unique name. ``options`` are further arguments for QEMU.
    """

    def __init__(
        self,
        config: Config,
        boot: Boot | None = None,
        *,
        name: str | None = None,
        options: Sequence[str] = (),
        patience: tuple[float, float] = BOOT_SECONDS,
    ) -> None:
        self.config = config
        self.name = name or f"live-{os.getpid()}-{next(_numbers)}"
        self.directory = Path(tempfile.mkdtemp(prefix="microvmi-live-"))
        self.monitor = Monitor(self.directory / "qmp")
        self.ram_file = self.directory / "ram"
        self._console = self.directory / "console"
        self._log = self.directory / "log"
        self._boot = boot
        self._patience = patience
        self._arguments = [*self._machine(), *self._kernel(), *options]

    @property
    def pid(self) -> int:
        """The process id of QEMU."""
        return self._process.pid

    @property
    def uri(self) -> str:
        """What the library opens this guest with."""
        return f"vmi://qemu/?vm_name={self.name}"

    @property
    def console(self) -> str:
        """What the guest printed so far."""
        return self._console.read_text(errors="replace")

    @property
    def banner(self) -> str:
        """What the guest's kernel calls itself, by its own word, see :func:`banner_of`."""
        return banner_of(self.console)

    def _machine(self) -> list[str]:
        common = [
            *("-name", self.name, "-accel", "tcg", "-smp", str(VCPUS), "-m", f"{self.config.mib}M"),
            *("-display", "none", "-net", "none", "-monitor", "none", "-serial", f"file:{self._console}"),
            *("-qmp", f"unix:{self.monitor.path},server=on,wait=off"),
        ]
        if self.config.cpu:
            common += ["-cpu", self.config.cpu]
        if self.config.ram == "private":
            return [*common, "-machine", self.config.machine]
        kind = f"memory-backend-file,mem-path={self.ram_file}"
        if self.config.ram == "memfd":
            kind = "memory-backend-memfd"
        backend = f"{kind},id=ram,share=on,size={self.config.mib}M"
        return [*common, "-machine", f"{self.config.machine},memory-backend=ram", "-object", backend]

    def _kernel(self) -> list[str]:
        if self._boot is None:
            return ["-S"]
        command_line = f"console={self._boot.console} quiet panic=-1 {self.config.line} live_name={self.name} "
        return ["-kernel", str(self._boot.kernel), "-initrd", str(self._boot.initrd), "-append", command_line]

    def start(self) -> None:
        """Start QEMU, wait for its monitor and, with a kernel, for the guest's user space.

        Once in thousands a kernel under QEMU's emulation gets stuck before it prints a word, though QEMU runs it. The
        library under test has not seen the machine by then: another is started, and what the first was at is printed.
        """
        self._launch()
        if self._boot is not None:
            try:
                self._wait("the guest's user space", self._patience[0], self._is_up)
            except TimeoutError as err:
                self._start_again(err)
        if self.config.ram == "deleted":
            self.ram_file.unlink()

    def _launch(self) -> None:
        wrapper = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        program = self._boot.program if self._boot else QEMU
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*wrapper, program, *self._arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._wait("its monitor", SOCKET_SECONDS, self._monitor_answers)

    def _start_again(self, err: TimeoutError) -> None:
        """Only if nobody stopped the machine."""
        if self.monitor.status() != "running":
            raise err
        print(f"{err}; another boot: {self.monitor.human('info registers -a')}", file=sys.stderr)
        self.kill()
        self._launch()
        self._wait("the guest's user space", self._patience[1], self._is_up)

    def _monitor_answers(self) -> bool:
        try:
            self.monitor.execute("query-status")
        except (OSError, MonitorError):
            return False
        return True

    def _is_up(self) -> bool:
        return initramfs.READY in self.console

    def _wait(self, what: str, seconds: float, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if self._process.poll() is not None:
                raise RuntimeError(f"QEMU ended: {self._log.read_text(errors='replace')}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"no sign of {what} after {seconds} s: {self.console[-2000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End QEMU at once and remove everything of it."""
        if hasattr(self, "_process"):
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def kill(self) -> None:
        """Let QEMU die as by a crash; what lies in its directory stays."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Guest:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def banner_of(text: str) -> str:
    """The line in which a kernel tells its version, without the number of its build: its memory need not have that."""
    line = next(line for line in text.splitlines() if line.startswith(initramfs.KERNEL))
    return re.sub(" #[0-9]* ", " # ", line)


def obtain_boot(directory: Path) -> Boot:
    """Everything a guest boots from; the initramfs is written into ``directory``."""
    initrd = directory / "initramfs.cpio"
    initramfs.build(packages.busybox(), initrd)
    return Boot(packages.kernel(), initrd)


def obtain_boot_arm64(directory: Path) -> Boot:
    """The same for AArch64."""
    initrd = directory / "initramfs-arm64.cpio"
    kernel, busybox = packages.arm64_files()
    initramfs.build(busybox, initrd)
    return Boot(kernel, initrd, QEMU_ARM64, "ttyAMA0")


RAM_KINDS = ("file", "memfd", "deleted", "private")
CONFIGS = [
    *(Config(ram) for ram in RAM_KINDS),
    *(Config(ram, 5120) for ram in RAM_KINDS if ram != "deleted"),
    *(Config(ram, mib, "q35") for mib in (512, 5120) for ram in RAM_KINDS if ram != "deleted"),
]
"""Every configuration that is tested, those that many tests use first."""
