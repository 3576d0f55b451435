# SPDX-License-Identifier: Apache-2.0
"""A made-up domain behind a stand-in for Xen's libraries, ``tests/drivers/xen/stand_in.c``.

On a host without Xen the driver of the tree opens nothing. So the stand brings a way to open along, as a plugin: the
same driver over the stand-in, which comes after the one of the tree when no driver is named. A real domain is
looked into by the lab, ``tests/xenlab``.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contract.target import Failing, Target

STAND_IN = Path(__file__).resolve().parents[2] / "drivers" / "xen" / "stand_in.c"

FRAMES, HOLE = 0x2000, range(0x30, 0x40)

PLUGIN = f"""
import sys
sys.path.insert(0, {str(STAND_IN.parent)!r})
from standin import StandIn
sys.path.remove({str(STAND_IN.parent)!r})
from libmicrovmi_py.drivers.xen.control import Control
from libmicrovmi_py.drivers.xen.domain import Domain
from libmicrovmi_py.errors import InvalidArgumentError

STAND_IN = StandIn({{library!r}})
for frame in range({FRAMES}):
    STAND_IN.memory[frame << 12 : (frame + 1) << 12] = frame.to_bytes(8, "little") * 512
STAND_IN.hole({HOLE.start}, {len(HOLE)})

class Played(Domain):
    @classmethod
    def open(cls, params):
        if params.vm_name != "tiny":
            raise InvalidArgumentError("no such domain")
        return cls(STAND_IN.libraries, Control(STAND_IN.libraries, 1, "tiny"))

DRIVER = Played
"""


def stand(folder: Path) -> Iterator[Target]:
    """A domain with a hole and Xen's own frames."""
    with _plugged_in(folder):
        yield Target("vmi:///?vm_name=tiny", _pieces(), writable=True)


def failing(folder: Path) -> Iterator[Failing]:
    """The kernel cannot map two of the frames; a mapping of many is made as a whole or not at all."""
    frames = {b"unreadable": 0x100, b"unwritable": 0x200}

    @contextmanager
    def broken() -> Iterator[None]:
        library = ctypes.CDLL(str(folder / "libstandin.so"))
        for what, frame in frames.items():
            library.standin_set(what, frame)
        yield
        for what in frames:
            library.standin_set(what, 0)

    with _plugged_in(folder):
        yield Failing(
            "vmi:///?vm_name=tiny", _pieces(), *(frame << 12 for frame in frames.values()), exact=False, failing=broken
        )


def _pieces() -> dict[int, bytes]:
    whole = b"".join(frame.to_bytes(8, "little") * 512 for frame in range(FRAMES))
    return {0: whole[: HOLE.start << 12], HOLE.stop << 12: whole[HOLE.stop << 12 :], 0xFC000000: bytes(9 << 12)}


@contextmanager
def _plugged_in(folder: Path) -> Iterator[None]:
    """Compile the stand-in, and put the plugin where plugins are looked for."""
    library = folder / "libstandin.so"
    compiler = shlex.split(os.environ.get("CC") or "cc")
    subprocess.run([*compiler, "-std=gnu11", "-shared", "-fPIC", "-O1", STAND_IN, "-o", library], check=True)
    (folder / f"played_{folder.name}.py").write_text(PLUGIN.format(library=str(library)))
    before = os.environ.get("MICROVMI_PLUGIN_PATH")
    os.environ["MICROVMI_PLUGIN_PATH"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["MICROVMI_PLUGIN_PATH"]
        else:
            os.environ["MICROVMI_PLUGIN_PATH"] = before
