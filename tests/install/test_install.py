# SPDX-License-Identifier: Apache-2.0
"""What ``make install`` and ``pip install .`` lay down works by itself, wherever it is moved."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EMPTY = {"PATH": "/usr/bin:/bin"}

PROGRAM = r"""
#include <libmicrovmi.h>
#include <stdio.h>
int main(int argc, char **argv)
{
    const char *error;
    uint8_t bytes[8];
    void *vm = microvmi_open(argc > 1 ? argv[1] : "", &error);
    if (vm == NULL) {
        fprintf(stderr, "%s\n", error);
        rs_cstring_free((char *)error);
        return 1;
    }
    if (!microvmi_read_physical(vm, 0x3000, bytes, sizeof bytes, NULL))
        return 2;
    printf("%s %d\n", microvmi_get_driver_name(vm), bytes[0]);
    microvmi_destroy(vm);
    return 0;
}
"""


def run(*command: object, cwd: Path | str = "/", env: dict[str, str] | None = None) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "client.c"
    path.write_text(PROGRAM)
    return path


def make(*words: str) -> None:
    # A make that runs this test must not hand its own jobs and variables on.
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    run("make", "-s", f"PY={sys.executable}", *words, cwd=ROOT, env=clean)


def test_an_installed_library_works_from_anywhere_and_can_be_moved(tmp_path: Path, source: Path) -> None:
    make("install", "PREFIX=/opt/vmi", f"DESTDIR={tmp_path / 'package'}")
    laid = tmp_path / "package" / "opt" / "vmi"
    assert sorted(path.name for path in laid.iterdir()) == ["bin", "include", "lib", "share"]
    info = (laid / "lib" / "pkgconfig" / "libmicrovmi.pc").read_text()
    assert "prefix=/opt/vmi\nlibdir=/opt/vmi/lib\n" in info
    moved = tmp_path / "another place"
    shutil.move(laid, moved)
    program = tmp_path / "client"
    run("cc", "-Wall", "-Werror", f"-I{moved}/include", source, "-o", program, f"-L{moved}/lib", "-lmicrovmi")
    assert run(program, "vmi://fake/", env={"LD_LIBRARY_PATH": f"{moved}/lib"}) == "fake 3\n"
    assert "fake" in run(moved / "bin" / "microvmi", "info", "vmi://fake/", env={})
    assert os.access(moved / "lib" / "libmicrovmi" / "libmicrovmi_py" / "microvmi-watcher", os.X_OK)
    make("uninstall", "PREFIX=/another place", f"DESTDIR={tmp_path}")
    assert [str(path.relative_to(moved)) for path in moved.rglob("*") if not path.is_dir()] == []


def test_the_installed_command_needs_nothing_of_the_tree_and_of_the_environment(tmp_path: Path) -> None:
    make("install", f"PREFIX={tmp_path}/usr", f"BINDIR={tmp_path}/programs", f"LIBDIR={tmp_path}/usr/lib/some-linux")
    command = tmp_path / "programs" / "microvmi"
    assert "0000000000001000  01 00" in run(command, "read", "vmi://fake/", "0x1000", "16", env={})
    share = tmp_path / "usr" / "share"
    assert run(command, "manual", env={}) == (share / "man" / "man1" / "microvmi.1").read_text()
    assert run(command, "completion", "bash", env={}) == (share / "bash-completion/completions/microvmi").read_text()
    assert run(command, "completion", "zsh", env={}) == (share / "zsh/site-functions/_microvmi").read_text()
    interpreter = command.read_text().split("\n")[0].removeprefix("#!")
    where = "import sys, libmicrovmi_py; print(sys.prefix == sys.base_prefix)"
    assert run(interpreter, "-c", where, env={"PYTHONPATH": f"{tmp_path}/usr/lib/some-linux/libmicrovmi"}) == "True\n"


def test_an_installed_library_holds_no_path_of_the_tree(tmp_path: Path) -> None:
    make("install", "PREFIX=/usr", f"DESTDIR={tmp_path}")
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.suffix in (".so", ".pc", ".pyc"):
            section = tmp_path / "stripped"
            if path.suffix == ".so":  # what a debugger is told does not count
                run("strip", "-g", "-o", section, path)
            else:
                shutil.copy(path, section)
            assert str(ROOT).encode() not in section.read_bytes(), path


def test_pip_install_brings_the_library_and_says_where_it_is(tmp_path: Path, source: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "venv", env={**os.environ})
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", ROOT, env={**os.environ})
    library = run(python, "-m", "libmicrovmi_py", "--library", env=EMPTY).strip()
    assert library.startswith(str(tmp_path))
    flags = run(python, "-m", "libmicrovmi_py", "--flags", env=EMPTY).split()
    run("cc", source, "-o", tmp_path / "client", *flags)
    assert run(tmp_path / "client", "vmi://fake/", env={}) == "fake 3\n"
    code = "from libmicrovmi_py import Microvmi; print(Microvmi.open('vmi://fake/').read_physical(0x3000, 1))"
    assert run(python, "-I", "-c", code, env=EMPTY) == "b'\\x03'\n"
    assert "fake" in run(tmp_path / "venv" / "bin" / "microvmi", "info", "vmi://fake/", env={})
    code = "import os; from libmicrovmi_py.transport.watcher import PROGRAM; print(os.access(PROGRAM, os.X_OK))"
    assert run(python, "-I", "-c", code, env=EMPTY) == "True\n"
    assert "class Library" in run(python, "-m", "libmicrovmi_py.stubgen", env=EMPTY)
