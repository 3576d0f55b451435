# SPDX-License-Identifier: Apache-2.0
"""The libkvmi that tests load: the one that MICROVMI_TEST_LIBKVMI names, else our own, compiled."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

STAND_IN = [str(Path(__file__).with_name(name)) for name in ("libkvmi.c", "libkvmi-guests.c")]


def library(folder: Path, *options: str) -> str:
    """The path of a libkvmi.so; ``options`` are for the compiler and choose our own in any case."""
    named = os.environ.get("MICROVMI_TEST_LIBKVMI")
    if named and not options:
        return named
    built = folder / "libkvmi.so"
    if not built.exists():
        command = ["cc", "-shared", "-fPIC", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", *options]
        subprocess.run([*command, "-o", str(built), *STAND_IN], check=True)
    return str(built)
