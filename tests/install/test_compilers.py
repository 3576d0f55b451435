# SPDX-License-Identifier: Apache-2.0
"""pkg-config and CMake find what ``make install`` laid down, whatever the folder is called and wherever it is."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from install.installing import PROGRAM, ROOT, made, make, ran, run
from needs import missing

from libmicrovmi_py._native import forcompilers

NAMED = "/opt/it's a place #1"

MANUAL = (ROOT / "docs" / "abi.md").read_text()
"""What it shows of pkg-config and CMake is what is tried here."""
WANTED = "0.4"
"""The version that it asks CMake for."""


@pytest.fixture(scope="module")
def laid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is installed in :data:`NAMED`, for all tests here."""
    package = tmp_path_factory.mktemp("package")
    make("install", f"PREFIX={NAMED}", f"DESTDIR={package}")
    return Path(f"{package}{NAMED}")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "client.c"
    path.write_text(PROGRAM)
    return path


def tool(name: str, package: str) -> str:
    return shutil.which(name) or missing(f"no {name}; to enable: sudo apt-get install {package}")


def flags(laid: Path, *words: str) -> list[str]:
    """What a shell makes of pkg-config's answer."""
    environment = {**os.environ, "PKG_CONFIG_PATH": str(laid / "lib" / "pkgconfig")}
    told = run(tool("pkg-config", "pkgconf"), *words, "libmicrovmi", env=environment)
    return shlex.split(told)


def test_pkg_config_tells_a_folder_of_any_name(laid: Path) -> None:
    assert flags(laid, "--cflags", "--libs") == [f"-I{NAMED}/include", f"-L{NAMED}/lib", "-lmicrovmi"]


def test_a_program_is_built_with_what_pkg_config_tells_of_another_prefix(
    laid: Path, source: Path, tmp_path: Path
) -> None:
    told = flags(laid, f"--define-variable=prefix={laid}", "--cflags", "--libs")
    run("cc", "-Wall", "-Werror", source, "-o", tmp_path / "client", *told)
    assert run(tmp_path / "client", "vmi://fake/", env={"LD_LIBRARY_PATH": str(laid / "lib")}) == "fake 3\n"


def test_the_command_of_the_manual_builds_a_program_below_another_root(laid: Path, source: Path) -> None:
    line = next(line for line in MANUAL.splitlines() if line.startswith("cc "))
    root = str(laid).removesuffix(NAMED)
    environment = {**os.environ, "PKG_CONFIG_PATH": f"{laid}/lib/pkgconfig", "PKG_CONFIG_SYSROOT_DIR": root}
    run("sh", "-c", f'eval "{line}"', cwd=source.parent, env=environment)
    assert run(source.parent / "client", "vmi://fake/", env={"LD_LIBRARY_PATH": str(laid / "lib")}) == "fake 3\n"


def test_folders_outside_of_the_prefix_are_told_as_they_are() -> None:
    texts = forcompilers.texts("/usr", "/usr/lib/some-linux", "/elsewhere/include")
    assert (
        "\nlibdir=${prefix}/lib/some-linux\nincludedir=/elsewhere/include\n"
        in texts["/usr/lib/some-linux/pkgconfig/libmicrovmi.pc"]
    )
    config = texts["/usr/lib/some-linux/cmake/libmicrovmi/libmicrovmi-config.cmake"]
    assert '"${_libmicrovmi_here}/../../libmicrovmi.so"' in config
    assert '"${_libmicrovmi_here}/../../../../../elsewhere/include"' in config


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ("PREFIX=/opt/(1)", "PREFIX=/opt/(1): pkg-config and CMake cannot tell '('; choose another"),
        ("LIBDIR=lib", "LIBDIR=lib: has to be an absolute path"),
    ],
)
def test_a_folder_that_cannot_be_told_is_refused_in_one_line(tmp_path: Path, variable: str, told: str) -> None:
    done = made("install", variable, f"DESTDIR={tmp_path}")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, told)
    assert list(tmp_path.iterdir()) == []


def configured(laid: Path, source: Path, wanted: str) -> subprocess.CompletedProcess[str]:
    project = MANUAL.split("```cmake\n")[1].split("```")[0]
    asked = f"find_package(libmicrovmi {WANTED} REQUIRED)\n"
    assert asked in project
    again = f"find_package(libmicrovmi {wanted} REQUIRED)\nfind_package(libmicrovmi)\n"
    (source.parent / "CMakeLists.txt").write_text(project.replace(asked, again))
    where = f"-DCMAKE_PREFIX_PATH={laid}"
    return ran(tool("cmake", "cmake"), "-S", source.parent, "-B", source.parent / "build", where)


@pytest.mark.parametrize("wanted", [WANTED, "0.5.0 EXACT"])
def test_cmake_builds_with_it_where_it_was_moved_to(laid: Path, source: Path, tmp_path: Path, wanted: str) -> None:
    moved = tmp_path / "moved to another place"
    shutil.copytree(laid, moved)
    done = configured(moved, source, wanted)
    assert done.returncode == 0, done.stderr
    run("cmake", "--build", tmp_path / "build")
    assert run(tmp_path / "build" / "client", "vmi://fake/", env={}) == "fake 3\n"


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("0.6", "version: 0.5.0"),
        ("0.1...<0.5.0", "version: 0.5.0"),
        ("0.4 COMPONENTS events", "no components, so no events"),
    ],
)
def test_cmake_is_told_what_it_cannot_have(laid: Path, source: Path, wanted: str, told: str) -> None:
    done = configured(laid, source, wanted)
    assert done.returncode != 0
    assert told in " ".join(done.stderr.split())


def test_cmake_is_told_that_a_file_is_gone(laid: Path, source: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(laid, moved)
    (moved / "include" / "libmicrovmi.h").unlink()
    done = configured(moved, source, "0.4")
    assert done.returncode != 0
    assert "include/libmicrovmi.h is not there: install libmicrovmi anew" in " ".join(done.stderr.split())
