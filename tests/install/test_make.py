# SPDX-License-Identifier: Apache-2.0
"""What ``make`` builds anew and what it leaves alone, in a tree whose path has spaces; which Pythons it takes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import _cffi_backend
import cffi
import pycparser
import pytest
from built import outdated

ROOT = Path(__file__).resolve().parents[2]
IGNORED = shutil.ignore_patterns(
    "build", "dist", "__pycache__", ".*_cache", "*.egg-info", "*.so", ".git", "lib", "include", "microvmi-watcher"
)
PACKAGES = "packages"
LONG_AGO = 1_000_000_000.0

Make = Callable[..., "subprocess.CompletedProcess[str]"]

OLD_PYTHON = """#!/bin/sh
# A Python that takes itself for 3.9; all that is asked of one so old is to run a text.
exec "{real}" -c 'import sys
sys.version_info = (3, 9, 2, "final", 0)
code = sys.argv.pop(2)
del sys.argv[1]
exec(code)' "$@"
"""

OTHER_PYTHON = """#!/bin/sh
# A Python whose headers are elsewhere.
[ "${{1##*/}}" != pythonflags.py ] || echo -I/home/another/include
exec "{real}" "$@"
"""


FREE_PYTHON = """#!/bin/sh
# A Python that takes itself for one without a GIL.
exec "{real}" -c 'import sys, sysconfig
sysconfig.get_config_vars()["Py_GIL_DISABLED"] = 1
code = sys.argv.pop(2)
del sys.argv[1]
exec(code)' "$@"
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this tree, built; every test leaves it built."""
    place = tmp_path_factory.mktemp("a tree") / "with spaces"
    place.mkdir()
    for name in ("Makefile", "build_embed.py", "pyproject.toml", "setup.py", "README.md", ".ci"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy2)(ROOT / name, place / name)
    (place / "include").mkdir()
    for header in (ROOT / "include").iterdir():
        shutil.copy2(header, place / "include")
    shutil.copytree(ROOT / "libmicrovmi_py", place / "libmicrovmi_py", ignore=IGNORED)
    # As a virtual environment in the tree has it: cffi is below the path with spaces, too.
    for package in (cffi, pycparser):
        shutil.copytree(Path(package.__file__).parent, place / PACKAGES / package.__name__)
    shutil.copy2(_cffi_backend.__file__, place / PACKAGES)
    assert _make(place, "lib").returncode == 0
    return place


@pytest.fixture
def make(tree: Path) -> Make:
    """``make`` in that tree, with this test's Python."""
    return lambda *words: _make(tree, *words)


def _make(place: Path, *words: str, python: str | None = sys.executable) -> subprocess.CompletedProcess[str]:
    # A make that runs this test must not hand its own jobs and variables on.
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "PYTHON"))}
    clean["PYTHONPATH"] = str(place / PACKAGES)
    chosen = [] if python is None else [f"PY={python}"]
    command = ["make", "--no-print-directory", "CFLAGS=-O0", *chosen, *words]
    return subprocess.run(command, cwd=place, env=clean, capture_output=True, text=True, check=False)


def _built_by(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Which of the parts a make has built."""
    assert done.returncode == 0, done.stderr
    parts = {"library": "-o build/lib/libmicrovmi.so", "module": "-o libmicrovmi_py/_direct"}
    parts |= {"watcher": "-o build/microvmi-watcher", "caller": "-o build/microvmi-caller", "Python": "-m compileall"}
    return [name for name, sign in parts.items() if sign in done.stdout]


def test_nothing_is_done_when_nothing_has_changed(tree: Path, make: Make) -> None:
    for path in (tree / "include" / "libmicrovmi.h", tree / "libmicrovmi_py" / "_native" / "direct.c"):
        path.touch()
    done = make("lib")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_second_make_writes_nothing(tree: Path, make: Make) -> None:
    before = _dates_of_files(tree)
    assert make("lib").returncode == 0
    assert _dates_of_files(tree) == before


def _dates_of_files(tree: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in tree.rglob("*") if path.is_file() and path.suffix != ".pyc"}


def test_a_c_file_that_is_not_listed_is_told_in_one_line(tree: Path, make: Make) -> None:
    extra = tree / "libmicrovmi_py" / "_native" / "extra.c"
    extra.write_text("")
    told = make("lib").stderr.splitlines()[0]
    extra.unlink()
    assert told.endswith("_native/units.py has to list all C files and no others: extra")
    assert make("lib").returncode == 0


@pytest.mark.parametrize(
    ("file", "parts"),
    [
        ("include/libmicrovmi.h", ["library", "module", "caller", "Python"]),
        ("libmicrovmi_py/_native/direct.c", ["library", "module"]),
        ("libmicrovmi_py/_native/exports.map", ["library", "module"]),
        ("libmicrovmi_py/_native/services.h", ["library", "module"]),
        ("libmicrovmi_py/_native/units.py", ["library", "module", "Python"]),
        ("libmicrovmi_py/_native/watcher.c", ["library", "module", "watcher", "Python"]),
        ("libmicrovmi_py/_native/caller.c", ["library", "module", "caller", "Python"]),
        ("libmicrovmi_py/model.py", ["Python"]),
        ("libmicrovmi_py/version.py", ["library", "module", "Python"]),
    ],
)
def test_a_change_is_built_once_however_old_the_file_is(tree: Path, make: Make, file: str, parts: list[str]) -> None:
    comment = {".py": "# {}", ".map": "# {}"}.get(Path(file).suffix, "/* {} */")
    with (tree / file).open("a") as source:
        source.write(comment.format("changed") + "\n")
    os.utime(tree / file, (LONG_AGO, LONG_AGO))
    assert outdated(tree) == f"build/ is not made of these sources ({file}): run make lib"
    assert _built_by(make("lib")) == parts
    assert make("lib").stdout == ""
    assert outdated(tree) is None


def test_a_module_that_is_gone_is_gone_from_the_library(tree: Path, make: Make) -> None:
    extra = tree / "libmicrovmi_py" / "extra.py"
    extra.write_text("")
    assert "extra.py" in str(outdated(tree))
    assert _built_by(make("lib")) == ["Python"]
    extra.unlink()
    assert "extra.py" in str(outdated(tree))
    assert _built_by(make("lib")) == ["Python"]
    assert not (tree / "build" / "lib" / "libmicrovmi" / "libmicrovmi_py" / "extra.py").exists()


def test_a_library_that_an_older_build_left_is_outdated(tree: Path, make: Make) -> None:
    source = tree / "libmicrovmi_py" / "_native" / "log.c"
    text = source.read_text()
    source.write_text(text + "#error\n")
    assert make("lib").returncode != 0
    assert outdated(tree) is not None
    source.write_text(text)
    assert make("lib").returncode == 0
    assert outdated(tree) is None


@pytest.mark.parametrize("name", ["new.c", "new.h"])
def test_a_source_that_was_not_there_makes_a_build_outdated(tree: Path, name: str) -> None:
    source = tree / "libmicrovmi_py" / "_native" / name
    source.write_text("")
    try:
        assert name in str(outdated(tree))
    finally:
        source.unlink()


def test_no_test_runs_on_an_outdated_build(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    shutil.copy2(ROOT / "tests" / "conftest.py", tmp_path / "tests")
    (tmp_path / "tests" / "test_it.py").write_text("def test_it():\n    pass\n")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MICROVMI_", "PYTEST_"))}
    clean["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/test_it.py"]
    done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
    told = "ERROR: build/ is not made of these sources (nothing is built): run make lib"
    assert (done.returncode, done.stderr.strip()) == (4, told)
    assert "passed" not in done.stdout


def test_what_npm_fetches_is_fetched_when_npm_is_there(
    tree: Path, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("find", "grep", "make", "mkdir", "rm", "sh", "sort", "touch"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(tmp_path))
    build = tree / "aside"
    for stamp in (build / "extras" / ".ready", build / "venv" / ".site"):
        stamp.parent.mkdir(parents=True)
        stamp.touch()
    fetched = []
    for npm in ("", "mkdir -p node_modules/koffi", "echo again; exit 1"):
        if npm:
            (tmp_path / "npm").write_text(f"#!/bin/sh\n{npm}\n")
            (tmp_path / "npm").chmod(0o755)
        done = make("BUILD=aside", "extras")
        assert done.returncode == 0, done.stderr
        fetched.append((build / "extras" / "node_modules" / "koffi").is_dir())
    shutil.rmtree(build)
    assert fetched == [False, True, True]


def test_a_path_with_spaces_is_installed_from_and_to(tree: Path, make: Make, tmp_path: Path) -> None:
    target = tmp_path / "a package"
    done = make("install", "PREFIX=/opt/v m i", f"DESTDIR={target}")
    assert done.returncode == 0, done.stderr
    place = target / "opt" / "v m i"
    code = "import ctypes; vm = ctypes.CDLL('./libmicrovmi.so'); print(vm.microvmi_version is not None)"
    seen = subprocess.run([sys.executable, "-c", code], cwd=place / "lib", capture_output=True, text=True, check=True)
    assert seen.stdout == "True\n"
    assert (place / "lib" / "pkgconfig" / "libmicrovmi.pc").exists()
    assert make("uninstall", "PREFIX=/opt/v m i", f"DESTDIR={target}").returncode == 0
    assert [path for path in place.rglob("*") if not path.is_dir()] == []


def test_pip_installs_from_a_path_with_spaces(tree: Path, tmp_path: Path) -> None:
    python = tmp_path / "an environment" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
    command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", str(tree)]
    environment = {**os.environ, "CFLAGS": "-O0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    code = "from libmicrovmi_py import Microvmi; print(Microvmi.open('vmi://fake/').read_physical(0x3000, 1))"
    seen = subprocess.run([python, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert seen.stdout == "b'\\x03'\n"


def test_an_editable_install_is_the_tree_as_make_builds_it(tree: Path, tmp_path: Path) -> None:
    python = tmp_path / "an environment" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
    before = (tree / "build" / "lib" / "libmicrovmi.so").stat().st_mtime_ns
    command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "-e", str(tree)]
    environment = {**os.environ, "CFLAGS": "-O0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    module = tree / "libmicrovmi_py" / "model.py"
    text = module.read_text()
    module.write_text(f"{text}\nEDITED = 'edited'\n")
    try:
        code = "from libmicrovmi_py import Microvmi, model; print(Microvmi.open('vmi://fake/').max_addr, model.EDITED)"
        seen = subprocess.run([python, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    finally:
        module.write_text(text)
    assert seen.stdout.endswith(" edited\n")
    command = [str(python), "-I", "-m", "libmicrovmi_py", "--library"]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert told.stdout == f"{tree}/build/lib/libmicrovmi.so\n"
    assert (tree / "build" / "lib" / "libmicrovmi.so").stat().st_mtime_ns == before


def test_another_python_s_library_is_built_anew(tree: Path, make: Make, tmp_path: Path) -> None:
    other = tmp_path / "python3"
    other.write_text(OTHER_PYTHON.format(real=sys.executable))
    other.chmod(0o755)
    inputs = ("native.inputs", "python.inputs")
    made = []
    for python in (sys.executable, other, sys.executable):
        done = make("BUILD=sums", f"PY={python}", *(f"sums/{name}" for name in inputs))
        assert done.returncode == 0, done.stderr
        made.append([(tree / "sums" / name).read_text() for name in inputs])
    shutil.rmtree(tree / "sums")
    assert made[0] == made[2]
    assert [before == after for before, after in zip(made[0], made[1], strict=True)] == [False, False]


@pytest.fixture
def old_python(tmp_path: Path) -> Path:
    path = tmp_path / "python3.9"
    path.write_text(OLD_PYTHON.format(real=sys.executable))
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("target", ["lib", "test", "demo"])
def test_a_python_that_is_too_old_is_told_in_one_line(
    tmp_path: Path, tree: Path, old_python: Path, target: str
) -> None:
    fresh = tmp_path / "fresh"
    shutil.copytree(tree, fresh, ignore=IGNORED)
    shutil.copytree(tree / "include", fresh / "include")
    done = _make(fresh, f"PYTHON={old_python}", target, python=None)
    first, last = done.stderr.splitlines()
    assert done.returncode != 0
    assert first == f"{old_python} is Python 3.9; libmicrovmi needs 3.10 or later: make PYTHON=/path/to/another"
    assert last.startswith("make: ***")


def test_a_python_that_is_chosen_replaces_that_of_an_earlier_build(tree: Path, old_python: Path) -> None:
    ready = tree / "build" / "venv" / ".ready"
    ready.parent.mkdir(exist_ok=True)
    ready.write_text("python3\n")
    try:
        assert "is Python 3.9" in _make(tree, f"PYTHON={old_python}", str(ready.relative_to(tree)), python=None).stderr
        assert ready.read_text() == "python3\n"
        assert _make(tree, str(ready.relative_to(tree)), python=None).stderr == ""
    finally:
        shutil.rmtree(ready.parent)


def test_a_python_that_is_free_threaded_is_told_in_one_line(tmp_path: Path, tree: Path) -> None:
    path = tmp_path / "python3.14t"
    path.write_text(FREE_PYTHON.format(real=sys.executable))
    path.chmod(0o755)
    done = _make(tree, f"PYTHON={path}", "build/venv/.ready", python=None)
    first, last = done.stderr.splitlines()
    needs = "and libmicrovmi needs a Python with a GIL: make PYTHON=/path/to/another"
    assert first == f"{path} is free-threaded, {needs}"
    assert last.startswith("make: ***")


def test_a_python_that_is_not_there_is_told_in_one_line(tree: Path) -> None:
    done = _make(tree, "PYTHON=/no/such/python3", "build/venv/.ready", python=None)
    assert done.stderr.splitlines()[0] == "/no/such/python3: no such Python; name another: make PYTHON=/path/to/python3"


def test_pip_tells_a_python_that_is_too_old_in_one_line() -> None:
    code = "import sys; sys.version_info = (3, 9, 2); sys.path.insert(0, sys.argv[1]); import wheel_backend"
    command = [sys.executable, "-c", code, str(ROOT / "libmicrovmi_py" / "_native")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "this is Python 3.9; libmicrovmi needs 3.10 or later\n")
