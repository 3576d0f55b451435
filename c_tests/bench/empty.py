# SPDX-License-Identifier: Apache-2.0
"""An empty call from C into Python through cffi, with the arguments of microvmi_read_physical(), as C source.

The library that is made of it needs a Python that runs already: that of ours.
"""

from __future__ import annotations

import contextlib
import io
import sysconfig
from pathlib import Path

DECLARATION = "bool bench_empty(void *context, uint64_t address, uint8_t *buffer, size_t size, uint64_t *done);"
PYTHON = """
from bench_empty_call import ffi

@ffi.def_extern(error=False)
def bench_empty(context, address, buffer, size, done):
    return True
"""


def write_source(path: Path) -> list[str]:
    """Write the source to ``path``; the options that compile it. Raises ``ImportError`` without cffi."""
    from cffi import FFI

    ffi = FFI()
    ffi.embedding_api(DECLARATION)
    ffi.set_source("bench_empty_call", "#include <stdbool.h>\n#include <stdint.h>")
    ffi.embedding_init_code(PYTHON)
    with contextlib.redirect_stdout(io.StringIO()):
        ffi.emit_c_code(str(path))
    includes = {sysconfig.get_path("include"), sysconfig.get_path("platinclude")}
    return ["-shared", "-fPIC", "-Wno-unused-parameter", *(f"-I{folder}" for folder in sorted(includes)), str(path)]
