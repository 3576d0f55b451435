# SPDX-License-Identifier: Apache-2.0
"""``make deb``: what its packages hold, and that it works. They are installed and purged by ``make test-deb``."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest
from install.installing import PROGRAM, ROOT, made, ran, run
from needs import missing

from libmicrovmi_py import __version__

CONTROL = (ROOT / ".ci" / "debian" / "control").read_text()
DESCRIBED = re.findall(r"^Package: (.*)$", CONTROL, re.MULTILINE)
LIBDIR = f"usr/lib/{sysconfig.get_config_var('MULTIARCH')}"
DEBIANS = Path("/usr/lib/python3/dist-packages")
HOLDS = {
    "libmicrovmi": {f"{LIBDIR}/libmicrovmi.so", f"{LIBDIR}/libmicrovmi/libmicrovmi_py/microvmi-watcher"},
    "libmicrovmi-dev": {
        "usr/include/libmicrovmi.h",
        f"{LIBDIR}/pkgconfig/libmicrovmi.pc",
        f"{LIBDIR}/cmake/libmicrovmi/libmicrovmi-config.cmake",
        "usr/share/man/man3/microvmi_open.3.gz",
    },
    "python3-microvmi": {"usr/lib/python3/dist-packages/libmicrovmi_py"},
    "microvmi": {
        "usr/bin/microvmi",
        "usr/share/man/man1/microvmi.1.gz",
        "usr/share/bash-completion/completions/microvmi",
        "usr/share/zsh/vendor-completions/_microvmi",
    },
}

ADDED = re.compile(r"/doc/|/lintian/|/runtime.d/|\.dist-info/")
"""What a package has by its rules alone."""

NOTHING = """#!/bin/sh
# Stands for: dpkg-query (it knows no package), sudo (it asks for a password), id (an ordinary user).
[ "${0##*/}" = id ] && echo 1000 && exit
exit 1
"""


@pytest.fixture(scope="module")
def debs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each package's file, compiled without optimization, which takes half of the time."""
    needed = re.sub(r"\(.*?\)|,", "", CONTROL.split("Build-Depends: ")[1].split("\n")[0]).replace("-compat", "").split()
    absent = [name for name in ("build-essential", *needed, "lintian") if ran("dpkg-query", "-W", name).returncode != 0]
    if absent:
        missing(f"no {', '.join(absent)}; to enable: sudo apt-get install {' '.join(absent)}")
    folder = tmp_path_factory.mktemp("dist")
    done = made("deb", f"DIST={folder}", "DEB_BUILD_OPTIONS=noopt noautodbgsym")
    assert (done.returncode, done.stderr) == (0, "")
    files = {path.name.split("_")[0]: path for path in folder.iterdir()}
    assert done.stdout.split() == sorted(map(str, files.values()))
    return files


@pytest.fixture(scope="module")
def unpacked(debs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root folder with all packages in it, and with Debian's own cffi."""
    root = tmp_path_factory.mktemp("root")
    for path in debs.values():
        run("dpkg-deb", "-x", path, root)
    for path in DEBIANS.iterdir():
        target = root / DEBIANS.relative_to("/") / path.name
        if path.name != "libmicrovmi_py":
            target.symlink_to(path)
    return root


def held(path: Path) -> set[str]:
    """The files of a package, and its links."""
    lines = run("dpkg-deb", "-c", path).splitlines()
    return {line.split(" ./")[1].split(" -> ")[0] for line in lines if line[0] != "d"}


def test_each_package_that_is_described_holds_its_part(debs: dict[str, Path]) -> None:
    assert debs.keys() == set(DESCRIBED) == HOLDS.keys()
    assert {name: sorted(HOLDS[name] - held(path)) for name, path in debs.items()} == {name: [] for name in debs}


def test_all_that_is_installed_is_in_one_package(debs: dict[str, Path], tmp_path: Path) -> None:
    """But for the record of ``make uninstall``, and what Python compiles; cffi's packages are links."""
    done = made("install", "PREFIX=/usr", f"LIBDIR=/{LIBDIR}", f"DESTDIR={tmp_path}")
    assert done.returncode == 0, done.stderr
    laid = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir()}
    private = f"{LIBDIR}/libmicrovmi"
    ours = {path for path in laid if not re.search(r"/cffi|/pycparser/|__pycache__|\.laid$", path)}
    compressed = {f"{path}.gz" if "/man/" in path else path for path in ours}
    wanted = {path.replace("zsh/site-functions", "zsh/vendor-completions") for path in compressed}
    packed = [path for file in debs.values() for path in held(file) if not ADDED.search(path)]
    assert len(packed) == len(set(packed))
    assert wanted - set(packed) == set()
    links = {f"{private}/{name}" for name in ("cffi", "pycparser", "ply")} | HOLDS["python3-microvmi"]
    extra = {path for path in set(packed) - wanted - links if "_cffi_backend" not in path}
    assert extra <= {f"{private}/nbdkit-microvmi-plugin.so"}


def test_lintian_has_nothing_to_say(debs: dict[str, Path]) -> None:
    done = ran("lintian", *debs.values())
    assert (done.returncode, done.stdout) == (0, "")


def test_the_library_depends_on_the_python_that_it_starts(debs: dict[str, Path]) -> None:
    told = run("dpkg-deb", "-f", debs["libmicrovmi"], "Depends").strip()
    version = run("/usr/bin/python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()
    assert {f"libpython{version}", f"python{version}", "python3-cffi"} <= set(told.split(", "))
    symbols = run("dpkg-deb", "-I", debs["libmicrovmi"], "symbols")
    exported = set(re.findall(r"^\s+(\w+);$", (ROOT / "libmicrovmi_py/_native/exports.map").read_text(), re.MULTILINE))
    assert exported == {name for name in re.findall(r"^ (\w+)@", symbols, re.MULTILINE) if name.islower()}
    assert "activate-noawait ldconfig" in run("dpkg-deb", "-I", debs["libmicrovmi"], "triggers")


def test_a_program_the_command_and_python_work(unpacked: Path, tmp_path: Path) -> None:
    source, program, dump = tmp_path / "client.c", tmp_path / "client", tmp_path / "vm.elf"
    source.write_text(PROGRAM)
    folder = f"{unpacked}/{LIBDIR}/pkgconfig"
    found = {**os.environ, "PKG_CONFIG_LIBDIR": folder, "PKG_CONFIG_SYSROOT_DIR": str(unpacked)}
    flags = run("pkg-config", "--cflags", "--libs", "libmicrovmi", env=found).replace('"', "").split()
    run("cc", "-Wall", "-Werror", source, "-o", program, *flags)
    run(unpacked / "usr/bin/microvmi", "dump", "vmi://fake/", dump, env={})
    assert run(program, dump, env={"LD_LIBRARY_PATH": f"{unpacked}/{LIBDIR}"}) == "dump 3\n"
    code = f"from libmicrovmi_py import Microvmi; print(Microvmi({str(dump)!r}).read_physical(0x3000, 1))"
    assert in_python(unpacked, code) == "b'\\x03'\n"


def in_python(unpacked: Path, code: str) -> str:
    """What it prints in Debian's Python, beside our modules."""
    environment = {"PYTHONPATH": f"{unpacked}{DEBIANS}", "PYTHONDONTWRITEBYTECODE": "1"}
    return run("/usr/bin/python3", "-c", code, env=environment)


def test_python_knows_what_is_installed(unpacked: Path) -> None:
    code = "import importlib.metadata; print(importlib.metadata.version('libmicrovmi-py'))"
    assert in_python(unpacked, code) == f"{__version__}\n"


def test_all_of_cffi_is_beside_the_modules(unpacked: Path) -> None:
    """The library looks nowhere else. Debian's parser of C is two packages."""
    modules = str(unpacked / LIBDIR / "libmicrovmi")
    code = f"import sys; sys.path.append({modules!r}); import cffi; cffi.FFI().cdef('int f();')"
    run("/usr/bin/python3", "-I", "-S", "-B", "-c", code)


def test_what_is_missing_is_told_in_one_line(tmp_path: Path) -> None:
    for name in ("dpkg-query", "sudo", "id"):
        (tmp_path / name).write_text(NOTHING)
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    command = [str(ROOT / ".ci" / "deb"), str(tmp_path / "scratch"), str(tmp_path / "dist")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert re.search(r"missing: .*apt-get install .*debhelper dh-python .*python3-cffi", done.stderr)
    assert not (tmp_path / "dist").exists()
