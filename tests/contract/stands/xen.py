# SPDX-License-Identifier: Apache-2.0
"""A made-up domain behind a stand-in for Xen's libraries, ``tests/drivers/xen/stand_in.c``.

On a host without Xen the driver of the tree opens nothing. So the stand brings a way to open along, as a plugin: the
same driver over the stand-in, which comes after the one of the tree when no driver is named. A real domain is
looked into by the lab, ``tests/xenlab``.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

from contract.target import Target

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
    """Compile the stand-in, and put the plugin where plugins are looked for."""
    library = folder / "libstandin.so"
    compiler = shlex.split(os.environ.get("CC") or "cc")
    subprocess.run([*compiler, "-std=gnu11", "-shared", "-fPIC", "-O1", STAND_IN, "-o", library], check=True)
    (folder / f"played_{folder.name}.py").write_text(PLUGIN.format(library=str(library)))
    before = os.environ.get("MICROVMI_PLUGIN_PATH")
    os.environ["MICROVMI_PLUGIN_PATH"] = str(folder)
    whole = b"".join(frame.to_bytes(8, "little") * 512 for frame in range(FRAMES))
    pieces = {0: whole[: HOLE.start << 12], HOLE.stop << 12: whole[HOLE.stop << 12 :], 0xFC000000: bytes(9 << 12)}
    yield Target("vmi:///?vm_name=tiny", pieces, writable=True)
    if before is None:
        del os.environ["MICROVMI_PLUGIN_PATH"]
    else:
        os.environ["MICROVMI_PLUGIN_PATH"] = before
