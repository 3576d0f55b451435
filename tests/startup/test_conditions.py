# SPDX-License-Identifier: Apache-2.0
"""Nothing around the process decides which Python starts: environment, working directory, place of the library."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from programs import Programs

STARTUP = 13
"""MICROVMI_ERROR_STARTUP."""

MODULES = ("json", "cffi", "_cffi_backend", "socket", "os", "sitecustomize", "usercustomize", "_libmicrovmi")
PACKAGES = ("encodings", "importlib", "collections", "libmicrovmi_py")

INTRUDER = """
import sys
sys.stderr.write("loaded " + __file__)
raise SystemExit(4)
"""


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A directory whose modules have the names of those that the library needs, and end the process."""
    for name in MODULES:
        (tmp_path / f"{name}.py").write_text(INTRUDER)
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(INTRUDER)
    (tmp_path / "python3").write_text("#!/bin/sh\necho the wrong python; exit 5\n")
    (tmp_path / "python3").chmod(0o755)
    (tmp_path / "pyvenv.cfg").write_text(f"home = {tmp_path}\n")
    return tmp_path


def hostile_environment(directory: Path) -> dict[str, str]:
    """Every variable by which a user can steer a Python, pointing the wrong way."""
    where = str(directory)
    paths = ("PYTHONHOME", "PYTHONPATH", "PYTHONUSERBASE", "PYTHONPYCACHEPREFIX", "PYTHONPLATLIBDIR", "HOME", "PATH")
    flags = ("PYTHONINSPECT", "PYTHONVERBOSE", "PYTHONDEBUG", "PYTHONDEVMODE", "PYTHONPROFILEIMPORTTIME", "PYTHONUTF8")
    nonsense = ("PYTHONIOENCODING", "PYTHONMALLOC", "PYTHONHASHSEED", "PYTHONTRACEMALLOC", "PYTHONINTMAXSTRDIGITS")
    return {
        **dict.fromkeys(paths, where),
        **dict.fromkeys(flags, "1"),
        **dict.fromkeys(nonsense, "nonsense"),
        "PYTHONSTARTUP": f"{where}/json.py",
        "PYTHONEXECUTABLE": f"{where}/python3",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONWARNINGS": "error",
        "PYTHONOPTIMIZE": "2",
        "LC_ALL": "nonsense",
    }


@pytest.mark.parametrize("way", ["linked", "dlopen"])
class TestEitherWay:
    """Linked with ``-lmicrovmi``, or loaded by a language that uses ``dlopen(RTLD_LOCAL)``."""

    @pytest.fixture
    def smoke(self, programs: Programs, way: str) -> Path:
        return programs.linked("smoke") if way == "linked" else programs.loading("smoke")

    def test_works_without_any_environment(self, programs: Programs, smoke: Path, library_path: Path) -> None:
        programs.run(smoke, library_path, env={})

    def test_works_without_python_in_path(
        self, programs: Programs, smoke: Path, library_path: Path, tmp_path: Path
    ) -> None:
        programs.run(smoke, library_path, env={"PATH": str(tmp_path), "HOME": "/nonexistent"}, cwd=tmp_path)

    def test_works_in_a_hostile_directory(
        self, programs: Programs, smoke: Path, library_path: Path, hostile: Path
    ) -> None:
        programs.run(smoke, library_path, env={"PATH": str(hostile)}, cwd=hostile)

    def test_works_in_a_hostile_environment(
        self, programs: Programs, smoke: Path, library_path: Path, hostile: Path
    ) -> None:
        programs.run(smoke, library_path, env=hostile_environment(hostile), cwd=hostile)

    def test_works_with_a_program_in_a_hostile_directory(
        self, programs: Programs, smoke: Path, library_path: Path, hostile: Path
    ) -> None:
        copy = Path(shutil.copy(smoke, hostile / "python3.11"))
        programs.run(copy, library_path, env={}, cwd=hostile)

    def test_needs_no_python_to_tell_its_version(self, programs: Programs, library_path: Path, way: str) -> None:
        programs.run(programs.linked("lazy") if way == "linked" else programs.loading("lazy"), library_path)


class TestMoved:
    """A copy of the library and its private directory, somewhere else."""

    @pytest.fixture
    def moved(self, library_path: Path, tmp_path: Path) -> Path:
        target = tmp_path / "a place with spaces, é and 100%" / "lib"
        shutil.copytree(library_path.parent, target)
        return target / library_path.name

    @pytest.mark.parametrize("way", ["linked", "dlopen"])
    def test_works_from_the_root_without_an_environment(
        self, programs: Programs, moved: Path, library_path: Path, way: str
    ) -> None:
        smoke = programs.linked("smoke", moved) if way == "linked" else programs.loading("smoke")
        programs.run(smoke, moved, library_path.parent, env={}, cwd="/")

    def test_works_through_a_symbolic_link(self, programs: Programs, moved: Path, tmp_path: Path) -> None:
        link = tmp_path / "libmicrovmi.so"
        link.symlink_to(moved)
        programs.run(programs.loading("smoke"), link)

    def test_works_from_a_relative_path(self, programs: Programs, moved: Path) -> None:
        programs.run(programs.loading("smoke"), f"./lib/{moved.name}", cwd=moved.parents[1])

    def test_takes_no_package_from_a_directory_above(self, programs: Programs, moved: Path) -> None:
        shutil.copytree(moved.parent / "libmicrovmi" / "libmicrovmi_py", moved.parents[2] / "libmicrovmi_py")
        (moved.parents[2] / "libmicrovmi_py" / "lib").mkdir(exist_ok=True)
        programs.run(programs.loading("smoke"), moved)

    def test_leaves_its_directory_as_it_was(self, programs: Programs, moved: Path) -> None:
        before = sorted(moved.parent.rglob("*"))
        programs.run(programs.loading("smoke"), moved)
        assert sorted(moved.parent.rglob("*")) == before

    def test_says_what_is_missing_without_its_private_directory(self, programs: Programs, moved: Path) -> None:
        private = moved.parent / "libmicrovmi"
        shutil.rmtree(private)
        programs.run(programs.loading("expect-error"), moved, STARTUP, private, "install")

    @pytest.mark.parametrize("content", [b"", b"def broken(:\n", b"\0\xff\xfe", b"raise SystemExit(3)\n", None])
    @pytest.mark.parametrize("module", ["__init__.py", "_capi/entry.py", "machine/microvmi.py"])
    def test_names_its_private_directory_when_that_is_broken(
        self, programs: Programs, moved: Path, module: str, content: bytes | None
    ) -> None:
        private = moved.parent / "libmicrovmi"
        broken = private / "libmicrovmi_py" / module
        shutil.rmtree(broken.parent / "__pycache__")
        if content is None:
            broken.unlink()
        else:
            broken.write_bytes(content)
        programs.run(programs.loading("expect-error"), moved, STARTUP, private)

    def test_names_its_private_directory_when_cffi_is_missing(self, programs: Programs, moved: Path) -> None:
        private = moved.parent / "libmicrovmi"
        for backend in private.glob("_cffi_backend*"):
            backend.unlink()
        programs.run(programs.loading("expect-error"), moved, STARTUP, private, "_cffi_backend")
