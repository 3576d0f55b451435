# SPDX-License-Identifier: Apache-2.0
"""The plugin in Python, for nbdkit's own ``python`` plugin: where there is none in C, and for files of other formats.

    nbdkit -U - python plugin.py uri=debian view=snapshot format=elf

Needs this package and cffi on ``PYTHONPATH``. nbdkit calls the functions, by their names; the machine is opened when it
has made its last fork, and serves all clients.
"""

from __future__ import annotations

from libmicrovmi_py.export import Layout, elf, lime, raw
from libmicrovmi_py.machine.microvmi import Microvmi

API_VERSION = 2

THREAD_MODEL_PARALLEL, FLAG_REQ_ONE = 3, 4
EXTENT_HOLE, EXTENT_ZERO = 1, 2
"""Numbers of nbdkit's. It has a module with them, which is there within nbdkit only."""

MOST_EXTENTS = 65536
"""A client that asks about everything is answered so many pieces at a time, and asks on from there."""

_ALLOWED = {"uri": None, "view": ("live", "snapshot", "pause"), "format": ("raw", "elf", "lime")}
_LAYOUTS = {"raw": raw, "elf": elf, "lime": lime}
_given = {"view": "live", "format": "raw"}
_served: list[Layout] = []


def config(key: str, value: str) -> None:
    """Take a parameter."""
    allowed = _ALLOWED.get(key, ())
    if allowed is not None and value not in allowed:
        raise RuntimeError(f"{key}={value} is no parameter of this plugin: uri=, view={_ALLOWED['view']}, format=")
    _given[key] = value


def config_complete() -> None:
    """All parameters were told."""
    if "uri" not in _given:
        raise RuntimeError("which machine? uri=NAME")


def thread_model() -> int:
    """As many requests at once as come; Python's lock is not held while memory is read."""
    return THREAD_MODEL_PARALLEL


def after_fork() -> None:
    """Open the machine, and lay out the file that is served."""
    machine = Microvmi.open(_given["uri"])
    if _given["view"] == "snapshot":
        with machine:
            machine = machine.snapshot()
    elif _given["view"] == "pause":
        machine.pause()
    _served.append(_LAYOUTS[_given["format"]](machine))


def cleanup() -> None:
    """The last client is gone."""
    for layout in _served:
        layout.machine.close()


def open(readonly: bool) -> Layout:
    """What a client reads."""
    return _served[0]


def get_size(layout: Layout) -> int:
    """Bytes."""
    return layout.size


def can_write(layout: Layout) -> bool:
    """Nobody writes."""
    return False


def can_multi_conn(layout: Layout) -> bool:
    """Nothing is kept for a client that another one could change."""
    return True


def can_extents(layout: Layout) -> bool:
    """It is known what is zero."""
    return True


def pread(layout: Layout, buffer: bytearray, offset: int, flags: int) -> None:
    """Fill the buffer."""
    layout.read_into(offset, buffer)


def extents(layout: Layout, count: int, offset: int, flags: int) -> list[tuple[int, int, int]]:
    """What a part of the file is made of."""
    told: list[tuple[int, int, int]] = []
    most = 1 if flags & FLAG_REQ_ONE else MOST_EXTENTS
    for extent in layout.extents(offset, count):
        told.append((extent.offset, extent.size, EXTENT_HOLE | EXTENT_ZERO if extent.hole else 0))
        if len(told) == most:
            break
    return told
