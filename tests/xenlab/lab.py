# SPDX-License-Identifier: Apache-2.0
"""The lab: a QEMU process with Xen and dom0 in it, from its start to the last check's result."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from live.packages import Unobtainable

from . import base, guests, overlay
from .results import Result, parse

FOLDER = guests.ROOT / "build" / "xen-lab"
QEMU = "qemu-system-x86_64"
TOTAL_SECONDS = 900.0
"""For Xen's start and all checks, also beside other tests. A check has a limit of its own in dom0."""

# Other processors fail: SMAP crashes dom0, MONITOR panics Xen, RDTSCP crashes Linux PVH guests, AVX crashes processes.
MACHINE = "-accel tcg,thread=multi -cpu qemu64,+svm,+npt,+rdrand -M q35 -smp 1 -m 1152 -display none -nodefaults"
XEN_OPTIONS = "console=com1 com1=115200,8n1 loglvl=warning guest_loglvl=warning dom0_mem=640M,max:640M dom0_max_vcpus=1"
DOM0_OPTIONS = "console=hvc0 rdinit=/init mitigations=off quiet panic=1"


class Lab:
    """``with Lab(library, checks)``: Xen boots, and the checks run in dom0; :meth:`result` waits for one of them.

    ``FOLDER`` then has dom0.log (Xen's, dom0's and the guests' consoles) and report.log (what dom0 says of the checks).
    """

    def __init__(self, library: Path, checks: Sequence[str], progress: Callable[[str], None]) -> None:
        self._files = prepare(library, checks, progress)
        self._progress = progress
        self._console = FOLDER / "dom0.log"
        self._report = FOLDER / "report.log"

    def __enter__(self) -> Lab:
        for path in (self._console, self._report):
            path.unlink(missing_ok=True)
        self._progress("Xen boots")
        serial = ["-serial", f"file:{self._console}", "-serial", f"file:{self._report}"]
        self._process = start(self._files, serial)
        self._deadline = time.monotonic() + TOTAL_SECONDS
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()

    def result(self, name: str) -> Result:
        """Wait for a check's result; checks end in the order in which they were given."""
        while True:
            ended = self._process.poll() is not None
            results = parse(self._report)
            if name in results:
                return results[name]
            if ended or time.monotonic() > self._deadline:
                what = "the lab ended" if ended else f"no result after {TOTAL_SECONDS:.0f} s"
                return Result(self._tail(), reason=f"{what}; more in {self._console}")
            time.sleep(0.1)

    def end(self) -> None:
        """Give dom0 the time to write the guests' consoles and to switch off."""
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _tail(self) -> list[str]:
        return self._console.read_text(errors="replace").splitlines()[-40:] if self._console.exists() else []


def prepare(library: Path, checks: Sequence[str], progress: Callable[[str], None]) -> base.Base:
    """Everything to boot from. Raises ``Unobtainable`` for what is missing."""
    for program in (QEMU, "ld", "strip", "dpkg-deb", "ldd", "tar"):
        if shutil.which(program) is None:
            raise Unobtainable(f"{program} is not installed")
    FOLDER.mkdir(parents=True, exist_ok=True)
    files = base.obtain(FOLDER, progress)
    progress("the library and the checks")
    initrd = FOLDER / "dom0.img"
    initrd.write_bytes(files.initrd.read_bytes() + overlay.build(files, library, checks))
    return replace(files, initrd=initrd)


def start(
    files: base.Base, options: Sequence[str], dom0_options: str = "", stdin: int | None = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start QEMU; it ends with the caller. ``stdin`` as for ``Popen``."""
    wrapper = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    modules = f"{files.kernel} {DOM0_OPTIONS} {dom0_options},{files.initrd}"
    boot = ["-kernel", str(files.xen), "-append", XEN_OPTIONS, "-initrd", modules]
    fixed = [*MACHINE.split(), "-no-user-config", "-no-reboot", "-monitor", "none"]
    return subprocess.Popen([*wrapper, QEMU, *fixed, *options, *boot], stdin=stdin)


def shell() -> None:
    """An interactive dom0: its console on this terminal; Ctrl-A X ends it."""
    library = guests.ROOT / "build" / "lib" / "libmicrovmi.so"
    files = prepare(library, overlay.checks(), lambda text: print(text, file=sys.stderr))
    serial = ["-serial", "mon:stdio", "-serial", "null"]
    start(files, serial, "lab_shell", stdin=None).wait()


if __name__ == "__main__":
    os.chdir(guests.ROOT)
    shell()
