# SPDX-License-Identifier: Apache-2.0
"""Which watchers there are: programs of the library that look after a snapshot in the background."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def watchers_of(qemu: int) -> list[int]:
    """The process numbers of those that watch over snapshots of that QEMU, and have not ended."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0") if folder.name.isdigit() else []
            if len(words) > 2 and words[0] == b"microvmi-watcher" and words[2] == b"%d" % qemu:
                found.append(int(folder.name))
    return found
