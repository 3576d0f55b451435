# SPDX-License-Identifier: Apache-2.0
"""What ``make install`` lays down works by itself, wherever it is moved."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from install.installing import PROGRAM, ROOT, make, run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "client.c"
    path.write_text(PROGRAM)
    return path


def test_an_installed_library_works_from_anywhere_and_can_be_moved(tmp_path: Path, source: Path) -> None:
    make("install", "PREFIX=/opt/vmi", f"DESTDIR={tmp_path / 'package'}")
    laid = tmp_path / "package" / "opt" / "vmi"
    assert sorted(path.name for path in laid.iterdir()) == ["bin", "include", "lib", "share"]
    info = (laid / "lib" / "pkgconfig" / "libmicrovmi.pc").read_text()
    assert "prefix=/opt/vmi\nlibdir=${prefix}/lib\n" in info
    moved = tmp_path / "another place"
    shutil.move(laid, moved)
    program = tmp_path / "client"
    run("cc", "-Wall", "-Werror", f"-I{moved}/include", source, "-o", program, f"-L{moved}/lib", "-lmicrovmi")
    assert run(program, "vmi://fake/", env={"LD_LIBRARY_PATH": f"{moved}/lib"}) == "fake 3\n"
    assert "fake" in run(moved / "bin" / "microvmi", "info", "vmi://fake/", env={})
    for name in ("microvmi-watcher", "microvmi-caller"):
        assert os.access(moved / "lib" / "libmicrovmi" / "libmicrovmi_py" / name, os.X_OK)
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
