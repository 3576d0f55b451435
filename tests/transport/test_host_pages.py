# SPDX-License-Identifier: Apache-2.0
"""Hosts whose pages are larger than a guest's, as AArch64's may be: a Python that is told so by its C library."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LARGE = 65536

PAGES = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>

long sysconf(int name)
{
    long (*usual)(int) = (long (*)(int))dlsym(RTLD_NEXT, "sysconf");
    return name == _SC_PAGESIZE ? 65536 : usual(name);
}

int getpagesize(void)
{
    return 65536;
}
"""


@pytest.fixture(scope="module")
def large_pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that says what the pages of such a host are."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "pages.c").write_text(PAGES)
    compiler = shlex.split(os.environ.get("CC") or "cc")
    subprocess.run([*compiler, "-shared", "-fPIC", "-o", "pages.so", "pages.c", "-ldl"], cwd=folder, check=True)
    return folder / "pages.so"


def _told(pages: Path, code: str) -> str:
    variables = {**os.environ, "LD_PRELOAD": str(pages), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", f"import mmap; assert mmap.PAGESIZE == {LARGE}\n{code}"]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout


def test_a_part_of_a_file_is_mapped_from_the_page_that_it_is_in(large_pages: Path, tmp_path: Path) -> None:
    file = tmp_path / "memory"
    file.write_bytes(b"".join(bytes([number]) * 4096 for number in range(48)))
    code = (
        "import os; from libmicrovmi_py.transport.fds import OwnedFd\n"
        "from libmicrovmi_py.transport.mapping import HostMapping\n"
        f"view = HostMapping(OwnedFd.open({str(file)!r}, os.O_RDONLY), 17 * 4096, 8192, writable=False).reach().view\n"
        "print(len(view.obj), view[0], view[8191])"
    )
    assert _told(large_pages, code).split() == [str(LARGE), "17", "18"]


def test_no_page_is_taken_for_untouched_where_pages_are_counted_otherwise(large_pages: Path) -> None:
    code = (
        "import os; from libmicrovmi_py.transport.processes import Process\n"
        "from libmicrovmi_py.transport.procmem import ProcessMemory\n"
        "print(ProcessMemory(Process.find(os.getpid())).anonymous().reach().pagemap)"
    )
    assert _told(large_pages, code) == "None\n"
