# SPDX-License-Identifier: Apache-2.0
"""What ``make dist`` makes: a source distribution that is the tree, and a wheel that works in another Python's home."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from install.installing import PROGRAM, ROOT, make, run
from needs import missing

from libmicrovmi_py._native import pythonflags

EMPTY = {"PATH": "/usr/bin:/bin"}
VERSION = f"python{sysconfig.get_python_version()}"
FOLDER = Path(os.__file__).parent.name
NOT_NEEDED = shutil.ignore_patterns("test", "idlelib", "tkinter", "config-*", "__pycache__", "*-packages")

WHOSE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <libmicrovmi.h>
#include <stdio.h>
int main(void)
{
    const char *error;
    Dl_info info;
    int (*take)(void), (*run)(const char *);
    if (microvmi_open("vmi://fake/", &error) == NULL) {
        puts(error);
        return 1;
    }
    if (dladdr(dlsym(RTLD_DEFAULT, "Py_GetVersion"), &info) == 0)
        return 2;
    puts(info.dli_fname);
    fflush(stdout);
    *(void **)&take = dlsym(RTLD_DEFAULT, "PyGILState_Ensure");
    *(void **)&run = dlsym(RTLD_DEFAULT, "PyRun_SimpleString");
    take();
    return run("import sys, zlib, _ctypes; print(*sys.path, sys.prefix, sys.executable, sep='\\n', flush=True)");
}
"""
"""Prints which libpython was loaded, where its modules come from, what it takes for its prefix and its program."""

CALLED = """
import sys
import microvmi_ctypes as stubs
from capi.test_elsewhere import called_elsewhere
library = called_elsewhere(stubs, sys.argv[1])
assert library.microvmi_open(b"vmi://fake/", None), library.microvmi_last_error()
print(library.cdll._process.args[0])
"""
"""Opens a machine as a Python of another version has to, and prints the program that did it."""

HIDE = """
mount -t tmpfs none "$1"
while shift && [ "$1" != -- ]; do mount --bind /dev/null "$1"; done
shift
exec "$@"
"""
"""What is done in a mount namespace: a folder and files up to a ``--`` are hidden from the command that follows."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both."""
    folder = tmp_path_factory.mktemp("made")
    make("dist", f"DIST={folder}")
    return folder


@pytest.fixture(scope="module")
def wheel(made: Path) -> Path:
    return next(made.glob("*.whl"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another Python of the same version: a copy of ours, in the home of somebody else."""
    home = tmp_path_factory.mktemp("some one") / "python"
    for folder in ("bin", "lib"):
        (home / folder).mkdir(parents=True)
    shutil.copy2(os.path.realpath(sys.executable), home / "bin" / VERSION)
    shutil.copy2(pythonflags.library(), home / "lib")
    shutil.copytree(Path(os.__file__).parent, home / "lib" / FOLDER, ignore=NOT_NEEDED)
    return home


@pytest.fixture(scope="module")
def installed(home: Path, wheel: Path) -> Path:
    """A virtual environment of that Python, with the wheel in it."""
    place = home.parent / "vmi"
    run(home / "bin" / VERSION, "-m", "venv", "--without-pip", place, env=EMPTY)
    _pip("--python", place / "bin" / VERSION, "install", wheel)
    return place


def _pip(*words: object) -> None:
    run(sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", *words, env={**os.environ})


def _packages(prefix: Path) -> Path:
    return prefix / "lib" / FOLDER / "site-packages"


def _who(folder: Path, packages: Path) -> list[str]:
    """What WHOSE prints, built with the library in ``packages`` and run with nothing in its environment."""
    told = run(sys.executable, "-m", "libmicrovmi_py", "--flags", cwd=packages, env=EMPTY)
    (folder / "whose.c").write_text(WHOSE)
    run("cc", folder / "whose.c", "-o", folder / "whose", *shlex.split(told))
    assert f"-L{packages}/" in told.replace("'", "")
    return run(folder / "whose", env={}).splitlines()


def _of(home: Path, packages: Path) -> list[str]:
    modules = home / "lib" / FOLDER
    libpython = home / "lib" / pythonflags.library().name
    return [str(path) for path in (libpython, modules, modules / "lib-dynload", packages, home, home / "bin" / VERSION)]


def test_a_wheel_uses_the_python_that_its_environment_is_of(tmp_path: Path, home: Path, installed: Path) -> None:
    packages = _packages(installed)
    assert _who(tmp_path, packages) == _of(home, packages)


def test_a_wheel_uses_the_python_that_it_is_laid_into(tmp_path: Path, home: Path, installed: Path) -> None:
    shutil.copytree(_packages(installed), _packages(home))
    try:
        assert _who(tmp_path, _packages(home)) == _of(home, _packages(home))
    finally:
        shutil.rmtree(_packages(home))


def test_a_wheel_takes_libpython_from_where_distributions_have_it(tmp_path: Path, home: Path, installed: Path) -> None:
    packages, name = _packages(installed), pythonflags.library().name
    triplet = home / "lib" / (sysconfig.get_config_var("MULTIARCH") or f"{os.uname().machine}-linux-gnu")
    triplet.mkdir()
    (home / "lib" / name).rename(triplet / name)
    try:
        assert _who(tmp_path, packages) == [str(triplet / name), *_of(home, packages)[1:]]
    finally:
        (triplet / name).rename(home / "lib" / name)
        triplet.rmdir()


def test_a_wheel_in_a_python_without_a_shared_library_uses_the_one_of_the_build(
    tmp_path: Path, home: Path, installed: Path
) -> None:
    ours, away = home / "lib" / pythonflags.library().name, home / "libpython"
    ours.rename(away)
    try:
        libpython, modules, *_ = _who(tmp_path, _packages(installed))
    finally:
        away.rename(ours)
    assert (libpython, modules) == (str(pythonflags.library()), str(Path(os.__file__).parent))


def _without_ours(program: Path) -> subprocess.CompletedProcess[str]:
    """The program with nothing in its environment, where neither our Python is nor one of the system's."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        missing("to hide the Python of the build takes root and unshare (apt-get install util-linux)")
    name = pythonflags.library().name
    system = [Path("/usr").glob(f"{folder}/{name}") for folder in ("lib*", "lib/*", "local/lib*")]
    hidden = {os.path.realpath(path) for path in (pythonflags.library(), *itertools.chain(*system))}
    words = ["unshare", "--mount", "sh", "-ec", HIDE, "sh", os.path.dirname(os.__file__), *sorted(hidden)]
    return subprocess.run([*words, "--", program], env=EMPTY, capture_output=True, text=True, check=False)


def test_a_wheel_needs_nothing_of_the_python_that_it_was_built_for(tmp_path: Path, home: Path, installed: Path) -> None:
    packages, ours, away = _packages(installed), home / "lib" / pythonflags.library().name, home / "libpython"
    expected = _of(home, packages)
    assert _who(tmp_path, packages) == expected
    done = _without_ours(tmp_path / "whose")
    assert (done.stdout.splitlines(), done.stderr) == (expected, "")
    ours.rename(away)
    try:
        (told,) = _without_ours(tmp_path / "whose").stdout.splitlines()
    finally:
        away.rename(ours)
    version = sysconfig.get_python_version()
    assert told.startswith(f"no Python {version} to start: none below {home}, {pythonflags.library()}: ")
    assert told.endswith(f": install its shared library {ours.name}, or build libmicrovmi for the Python that is there")


def test_an_environment_with_a_wheel_has_all_that_a_program_needs(tmp_path: Path, installed: Path) -> None:
    python = installed / "bin" / "python"
    library = run(python, "-m", "libmicrovmi_py", "--library", env=EMPTY).strip()
    assert library == f"{_packages(installed)}/libmicrovmi_py/lib/libmicrovmi.so"
    (tmp_path / "client.c").write_text(PROGRAM)
    flags = shlex.split(run(python, "-m", "libmicrovmi_py", "--flags", env=EMPTY))
    run("cc", tmp_path / "client.c", "-o", tmp_path / "client", *flags)
    assert run(tmp_path / "client", "vmi://fake/", env={}) == "fake 3\n"
    code = "from libmicrovmi_py import Microvmi; print(Microvmi.open('vmi://fake/').read_physical(0x3000, 1))"
    assert run(python, "-I", "-c", code, env=EMPTY) == "b'\\x03'\n"
    assert "fake" in run(installed / "bin" / "microvmi", "info", "vmi://fake/", env={})
    code = "import os; from libmicrovmi_py.transport.watcher import PROGRAM; print(os.access(PROGRAM, os.X_OK))"
    assert run(python, "-I", "-c", code, env=EMPTY) == "True\n"
    assert "class Library" in run(python, "-m", "libmicrovmi_py.stubgen", env=EMPTY)


def test_a_wheel_has_the_program_that_calls_it_for_other_pythons(tmp_path: Path, installed: Path) -> None:
    inside = _packages(installed) / "libmicrovmi_py"
    stubs = run(installed / "bin" / "python", "-m", "libmicrovmi_py.stubgen", env=EMPTY)
    (tmp_path / "microvmi_ctypes.py").write_text(stubs)
    paths = f"{tmp_path}:{ROOT / 'tests'}:{ROOT}"
    library = inside / "lib" / "libmicrovmi.so"
    told = run(sys.executable, "-c", CALLED, library, env={**EMPTY, "PYTHONPATH": paths})
    assert told == f"{inside / 'microvmi-caller'}\n"


def _told(wheel: Path, name: str) -> Message:
    """A file of the wheel's metadata."""
    with zipfile.ZipFile(wheel) as archive:
        inside = next(path for path in archive.namelist() if path.endswith(f".dist-info/{name}"))
        return Parser().parsestr(archive.read(inside).decode())


def test_a_wheel_is_for_one_python_and_one_kind_of_machine(wheel: Path) -> None:
    told = _told(wheel, "WHEEL")
    assert told["Root-Is-Purelib"] == "false"
    python = f"cp{sysconfig.get_python_version().replace('.', '')}"
    assert re.fullmatch(rf"{python}-{python}t?-manylinux_2_\d+_{os.uname().machine}", told["Tag"])
    assert wheel.name.endswith(f"-{told['Tag']}.whl")


def test_auditwheel_finds_nothing_that_another_machine_may_lack(wheel: Path) -> None:
    """But a C library of that age: no libpython, which it would take along and break."""
    tag = _told(wheel, "WHEEL")["Tag"].split("-")[-1]
    shown = " ".join(run(sys.executable, "-m", "auditwheel", "show", wheel, env={**os.environ}).split())
    assert f'consistent with the following platform tag: "{tag}"' in shown
    assert re.findall(r"lib[\w.+-]+\.so[\w.]*", shown) == ["libc.so.6"]


def test_a_wheel_has_what_is_used_and_no_source_in_c(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {path for path in archive.namelist() if path.startswith("libmicrovmi_py/") and not path.endswith("/")}
    inside = ("_direct.abi3.so", "microvmi-watcher", "microvmi-caller", "lib/libmicrovmi.so", "include/libmicrovmi.h")
    assert {f"libmicrovmi_py/{name}" for name in inside} <= names
    headers = {name for name in names if name.startswith("libmicrovmi_py/include/")}
    assert {Path(name).name for name in headers} == {path.name for path in (ROOT / "include").iterdir()}
    assert {Path(name).suffix for name in names - headers} == {".py", ".so", ".typed", ".html", ".css", ".js", ""}


def test_the_source_distribution_is_the_tree(made: Path) -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        missing("which files the tree has is known in a git checkout: apt-get install git; git clone")
    listed = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "--cached", "--others", "--exclude-standard"]
    tree = {name for name in run(*listed, cwd=ROOT, env={**os.environ}).splitlines() if (ROOT / name).exists()}
    with tarfile.open(next(made.glob("*.tar.gz"))) as archive:
        files = {member.name.split("/", 1)[1]: member.mode for member in archive if member.isfile()}
    generated = {name for name in files if name in ("PKG-INFO", "setup.cfg") or ".egg-info/" in name}
    assert set(files) - generated == tree
    assert [name for name in tree if bool(files[name] & 0o100) != os.access(ROOT / name, os.X_OK)] == []


def test_an_extra_names_the_packages_that_the_tests_of_tools_need(wheel: Path) -> None:
    told = _told(wheel, "METADATA")
    wanted = [text.split(";")[0] for text in told.get_all("Requires-Dist", []) if "extra ==" in text]
    tried = re.findall(r"^(\w+)==(\S+)$", (ROOT / ".ci" / "extras").read_text(), re.MULTILINE)
    assert sorted(told.get_all("Provides-Extra", [])) == ["drgn", "fleet", "volatility"]
    assert sorted(re.split(r"\W", text)[0] for text in wanted) == [name for name, _ in tried]
    least = {name: tuple(map(int, number.split("."))) for name, number in re.findall(r"(\w+)>=([\d.]+)", str(wanted))}
    assert all(tuple(map(int, version.split("."))) >= least.get(name, ()) for name, version in tried)
