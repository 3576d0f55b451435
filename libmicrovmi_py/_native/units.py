# SPDX-License-Identifier: Apache-2.0
"""The C files, and what of them is compiled as one unit, for the sake of inlining. Each compiles alone as well."""

from __future__ import annotations

from collections.abc import Sequence

DIRECT = (
    *("thread", "table", "look", "process", "sparse", "pagemap", "cache", "foreign", "stream", "direct", "diff"),
    *("paging", "translations", "path", "gather", "virtual", "told", "runs", "copy", "fill"),
)
"""Direct access to memory: part of the library, of the Python module, and of a benchmark."""
MODULE = (
    *(*DIRECT, "walks", "objects", "turns", "libvirt", "migration", "receiver", "watching", "content"),
    *("packed", "packed_table", "saved", "stub"),
)
"""The Python module."""
LIBRARY = (
    *MODULE,
    *("error", "readers", "context", "standard", "environment", "fork", "log"),
    *("python", "home", "interpreter", "modules", "calls", "boot"),
    *("entry", "entry_memory", "entry_streams", "entry_virtual", "entry_snapshots", "entry_dump", "entry_image"),
    *("registers", "events", "listing"),
)
"""All of the library's."""
PROGRAMS = (
    *("watcher", "watcher_monitor", "watcher_snapshot", "watcher_events", "watcher_pause", "watcher_observe"),
    "caller",
)
"""What is a program of its own: the watcher, and the caller."""


def unit(names: Sequence[str]) -> str:
    """One C file of these."""
    return "".join(f'#include "{name}.c"\n' for name in names)
