# SPDX-License-Identifier: Apache-2.0
"""Which libraries programs need where nothing is installed: this machine's loader knows."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from collections.abc import Iterable
from pathlib import Path

LOADED = re.compile(r"^\s+(?:\S+ => )?(/\S+) \(0x", re.MULTILINE)
"""A line of ldd: a library, or the loader, and where it is."""


def is_elf(path: Path) -> bool:
    """Whether this is a program or a library."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def libraries(programs: Iterable[Path], folder: Path | None = None) -> list[Path]:
    """What the loader would take for programs and libraries; those in ``folder`` come first."""
    environment = {**os.environ, "LC_ALL": "C"}
    if folder is not None:
        environment["LD_LIBRARY_PATH"] = str(folder)
    told = subprocess.run(["ldd", *programs], env=environment, capture_output=True, text=True, timeout=60, check=False)
    return [Path(path) for path in sorted(set(LOADED.findall(told.stdout)))]


def stack_unwinder() -> Path:
    """libgcc_s: pthread_cancel() loads it, and no program says so."""
    command = ["cc", "-print-file-name=libgcc_s.so.1"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
    return Path(os.path.normpath(told))


def shared_python() -> Path:
    """libpython: our library loads it by itself, and names it nowhere."""
    return Path(sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME"))
