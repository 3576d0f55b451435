# SPDX-License-Identifier: Apache-2.0
"""What a program does not wait for between its start and the first byte of an image."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

NEEDLESS = {
    *("ast", "dataclasses", "inspect", "json", "logging", "pkgutil", "re", "socket", "traceback", "typing"),
    *("urllib.parse", "importlib.metadata", "cffi", "pycparser"),
}
"""Modules that are large, and that nothing on the way needs: what does need one imports it where it does."""

OTHERS = ("fake", "kvm", "memflow", "qemu", "virtualbox", "xen")

PYTHON = """
from libmicrovmi_py import Microvmi
print(Microvmi.open({image!r}).read_physical(4096, 5))
"""
LIBRARY = """
import ctypes
before = set(sys.modules)
lib = ctypes.CDLL({library!r})
lib.microvmi_open.restype = ctypes.c_void_p
buffer = ctypes.create_string_buffer(5)
vm = ctypes.c_void_p(lib.microvmi_open({image!r}.encode(), None))
assert lib.microvmi_read_physical(vm, ctypes.c_uint64(4096), buffer, ctypes.c_size_t(5), None)
print(buffer.raw)
"""


@pytest.mark.parametrize("how", [PYTHON, LIBRARY], ids=["Python", "library"])
def test_the_first_byte_of_an_image_waits_for_no_module_that_it_does_not_need(
    how: str, tmp_path: Path, library_path: Path
) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"first".rjust(4096 + 5).ljust(3 * 4096))
    program = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(library_path.parent / 'libmicrovmi')!r}]\n"
        "before = set(sys.modules)\n"
        + how.format(image=str(image), library=str(library_path))
        + "print(*sorted(set(sys.modules) - before))\n"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    read, loaded = done.stdout.splitlines()
    assert read == "b'first'"
    assert not NEEDLESS & set(loaded.split())
    assert not {f"libmicrovmi_py.drivers.{name}" for name in OTHERS} & set(loaded.split())
    assert "libmicrovmi_py.drivers.dump" in loaded.split()
