# SPDX-License-Identifier: Apache-2.0
"""Turns include/libmicrovmi.h and libmicrovmi_py/_native/*.c into the C source of libmicrovmi.so.

Usage: build_embed.py LIBRARY.c MODULE.c. The second one is a Python module of the same C functions, for Python programs
that use the package without the library. It compiles nothing; the Makefile does.
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from pathlib import Path

import cffi

from libmicrovmi_py._native import pythonflags
from libmicrovmi_py.header import declarations
from libmicrovmi_py.version import __version__

ROOT = Path(__file__).resolve().parent
NATIVE = ROOT / "libmicrovmi_py" / "_native"

PROTOTYPE = re.compile(r"^[\w ]+[ *](microvmi_|rs_)\w+\([^;{]*\);", re.MULTILINE)

SHARED_WITH_PYTHON = """
bool mvi_environment_counts(void);
void mvi_hand_on_interrupt(void);
void mvi_set_error(int32_t code, const char *text);
void mvi_context_describe(void *context, int32_t driver_type, const char *driver_name);
bool mvi_context_publish(uintptr_t context, struct mvi_table *table, struct mvi_cursor *plain,
                         struct mvi_cursor *padded);
bool mvi_context_reads(const struct mvi_table *table);
"""


def facts() -> dict[str, str]:
    """What the library has to know about the Python it is built for and about itself."""
    return {
        "MVI_VERSION": __version__,
        "MVI_CFFI_VERSION": cffi.__version__,
        "MVI_PYTHON_VERSION": sysconfig.get_python_version(),
        "MVI_PYTHON_FULL_VERSION": sys.version.split()[0],
        "MVI_PYTHON_LIBRARY": str(pythonflags.library()),
        "MVI_PYTHON_SONAME": pythonflags.library().name,
        "MVI_PYTHON_HOME": sys.base_prefix,
        "MVI_PYTHON_EXECUTABLE": os.path.realpath(sys.executable),
        "MVI_PYTHON_STDLIB": os.path.dirname(os.__file__),
        "MVI_PYTHON_DYNLOAD": next(path for path in sys.path if path.endswith("lib-dynload")),
    }


def preamble() -> str:
    """Every C file of ours, in one translation unit with what cffi generates."""
    lines = ["#ifndef _GNU_SOURCE", "#define _GNU_SOURCE", "#endif"]
    lines += [f'#define {name} "{value}"' for name, value in facts().items()]
    lines += [f'#include "{path.name}"' for path in sorted(NATIVE.glob("*.c"))]
    return "\n".join(lines)


def embedding() -> cffi.FFI:
    """The library as cffi sees it: the header, the functions written in Python, and what they call back."""
    ffi = cffi.FFI()
    ffi.cdef(declarations(ROOT / "include" / "libmicrovmi.h"))
    ffi.cdef((NATIVE / "hot.h").read_text())
    ffi.cdef('extern "Python+C" {\n' + (NATIVE / "callbacks.h").read_text() + "}")
    ffi.cdef(SHARED_WITH_PYTHON)
    ffi.embedding_api("")
    ffi.embedding_init_code("pass")
    ffi.set_source("_libmicrovmi", preamble())
    return ffi


def module() -> cffi.FFI:
    """Direct access to memory as a Python module."""
    ffi = cffi.FFI()
    ffi.cdef(PROTOTYPE.sub("", declarations(ROOT / "include" / "libmicrovmi.h")))
    ffi.cdef((NATIVE / "hot.h").read_text())
    ffi.set_source("libmicrovmi_py._hot", '#include "hot.c"')
    return ffi


if __name__ == "__main__":
    embedding().emit_c_code(sys.argv[1])
    module().emit_c_code(sys.argv[2])
