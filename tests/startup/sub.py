# SPDX-License-Identifier: Apache-2.0
"""A Python host that calls from a sub-interpreter. Run by any Python 3.10 and later, silent when it works.

sub.py LIBRARY first|later: the process's first call comes from there, or one after others.
"""

import faulthandler
import sys

try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters

INSIDE = """
import ctypes
NOT_SUPPORTED = 5
for loader in (ctypes.CDLL, ctypes.PyDLL):
    library = loader({path!r})
    library.microvmi_open.restype = ctypes.c_void_p
    library.microvmi_last_error.restype = ctypes.c_char_p
    machine = library.microvmi_open(b"vmi://fake/", None)
    if machine:
        library.microvmi_destroy(ctypes.c_void_p(machine))
        assert library.microvmi_last_error_code() == 0, library.microvmi_last_error()
    else:
        assert library.microvmi_last_error_code() == NOT_SUPPORTED, library.microvmi_last_error()
        assert b"sub-interpreter" in library.microvmi_last_error()
"""


def open_and_close(path: str) -> None:
    import ctypes

    library = ctypes.CDLL(path)
    library.microvmi_open.restype = ctypes.c_void_p
    machine = library.microvmi_open(b"vmi://fake/", None)
    assert machine
    library.microvmi_destroy(ctypes.c_void_p(machine))


def main() -> None:
    faulthandler.dump_traceback_later(30, exit=True)
    if sys.argv[2] == "later":
        open_and_close(sys.argv[1])
    try:
        inner = interpreters.create("legacy")
    except TypeError:
        inner = interpreters.create(isolated=False)
    failed = interpreters.run_string(inner, INSIDE.format(path=sys.argv[1]))
    assert failed is None, failed
    interpreters.destroy(inner)
    open_and_close(sys.argv[1])


if __name__ == "__main__":
    main()
