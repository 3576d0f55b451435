# SPDX-License-Identifier: Apache-2.0
"""Prints the compiler and linker flags that embed the Python which runs this; the Makefile asks."""

from __future__ import annotations

import sys
import sysconfig

COMPILER_DEFAULTS = ("/lib", "/usr/lib", "/lib64", "/usr/lib64")


def includes() -> list[str]:
    """Include directories: all that a Python module takes."""
    return [f"-I{path}" for path in sorted({sysconfig.get_path("include"), sysconfig.get_path("platinclude")})]


def flags() -> list[str]:
    """Those, the library directory with a run path where it needs one, and the shared libpython."""
    library, directory = sysconfig.get_config_var("LDLIBRARY"), sysconfig.get_config_var("LIBDIR")
    if not library or not library.endswith(".so"):
        version = sysconfig.get_python_version()
        sys.exit(
            f"{sys.executable}: this Python {version} has no shared library, which embedding needs: "
            f"run make clean, then make with PYTHON=/usr/bin/python3 or another Python built with --enable-shared"
        )
    search = [f"-L{directory}"]
    if not any(directory == place or directory.startswith(place + "/") for place in COMPILER_DEFAULTS):
        search.append(f"-Wl,-rpath,{directory}")
    return [*includes(), *search, f"-l{library[3:-3]}"]


if __name__ == "__main__":
    print(*(includes() if sys.argv[1:] == ["includes"] else flags()))
