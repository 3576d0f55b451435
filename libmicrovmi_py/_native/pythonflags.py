# SPDX-License-Identifier: Apache-2.0
"""The Python that runs this, as the library's build wants to know it; the Makefile asks for the compiler's flags."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path


def includes() -> list[str]:
    """Include directories: all that a Python module takes."""
    return [f"-I{path}" for path in sorted({sysconfig.get_path("include"), sysconfig.get_path("platinclude")})]


def library() -> Path:
    """The shared libpython, under the name that programs load; without one this ends the program with a line."""
    name, directory = sysconfig.get_config_var("INSTSONAME"), sysconfig.get_config_var("LIBDIR")
    path = Path(directory or "", name or "")
    if ".so" not in path.name or not path.exists():
        version = sysconfig.get_python_version()
        sys.exit(
            f"{sys.executable}: this Python {version} has no shared library, which embedding needs: "
            f"run make clean, then make with PYTHON=/usr/bin/python3 or another Python built with --enable-shared"
        )
    return path


if __name__ == "__main__":
    library()
    print(*includes())
