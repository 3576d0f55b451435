# SPDX-License-Identifier: Apache-2.0
"""A program with more rights than the user who started it: what that user put into the environment does not count."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from needs import missing

if TYPE_CHECKING:
    from programs import Programs

NOBODY = 65534
NO_RIGHTS = 77
"""What the program says on a file system where such rights do not count."""

READ_ALL = struct.pack("<5I", 0x02000001, 1 << 2, 0, 0, 0)
"""A file's capability, in effect: CAP_DAC_READ_SEARCH, which also lets it reach a library in somebody's home."""

INTRUDER = """
import pathlib
from libmicrovmi_py.drivers.fake import DRIVER as Fake
pathlib.Path({mark!r}).touch()
class Intruder(Fake):
    name = "intruder"
DRIVER = Intruder
"""

PYTHON = """
import sys
from libmicrovmi_py.environment import variable
sys.exit(3 if variable("MICROVMI_PLUGIN_PATH") else 0)
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user can enter and write to; pytest's own are one user's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.fixture
def mark(place: Path) -> Path:
    """What the intruder touches, whose code runs with the rights of the program then."""
    return place / "mark"


@pytest.fixture
def environment(place: Path, mark: Path) -> dict[str, str]:
    (place / "plugins").mkdir()
    (place / "plugins" / "intruder.py").write_text(INTRUDER.format(mark=str(mark)))
    return {"MICROVMI_URI": "vmi://fake/", "MICROVMI_PLUGIN_PATH": str(place / "plugins"), "RUST_LOG": "trace"}


def need_root() -> None:
    if os.geteuid() != 0:
        missing("making a setuid program of another user takes root: run as root")


def run(program: Path, *arguments: object, env: dict[str, str], user: int | None) -> int:
    """The program's exit code; it must print nothing."""
    ended = subprocess.run(
        [str(program), *map(str, arguments)],
        env=env,
        cwd="/",
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if ended.returncode == NO_RIGHTS:
        missing(f"{program} got no rights of its own: TMPDIR must not be mounted nosuid")
    assert not ended.stdout + ended.stderr
    return ended.returncode


@pytest.fixture
def program(programs: Programs, place: Path) -> Path:
    return Path(shutil.copy(programs.loading("privileged"), place))


@pytest.mark.parametrize("how", ["keeps", "drops"])
def test_a_setuid_program_ignores_it(
    program: Path, library_path: Path, environment: dict[str, str], mark: Path, how: str
) -> None:
    need_root()
    os.chown(program, NOBODY, -1)
    program.chmod(0o4755)
    assert run(program, how, library_path, env=environment, user=None) == 0
    assert not mark.exists()


def test_a_program_with_a_capability_ignores_it(
    program: Path, library_path: Path, environment: dict[str, str], mark: Path
) -> None:
    need_root()
    os.setxattr(program, "security.capability", READ_ALL)
    assert run(program, "keeps", library_path, env=environment, user=NOBODY) == 0
    assert not mark.exists()


def test_an_ordinary_program_takes_it(
    program: Path, library_path: Path, environment: dict[str, str], mark: Path
) -> None:
    assert run(program, "plain", library_path, env={**environment, "RUST_LOG": "off"}, user=None) == 0
    assert mark.exists()


@pytest.mark.parametrize("capable", [True, False])
def test_a_python_with_a_capability_ignores_it(place: Path, environment: dict[str, str], capable: bool) -> None:
    need_root()
    python = Path(shutil.copy(os.path.realpath(sys.executable), place / "python-copy"))
    libraries = str(sysconfig.get_config_var("LIBDIR"))
    tree = Path(__file__).resolve().parents[2]
    if capable:
        os.setxattr(python, "security.capability", READ_ALL)
    code = run(
        python,
        "-c",
        PYTHON,
        env={**environment, "PYTHONHOME": f"{sys.base_prefix}:{sys.base_exec_prefix}", "PYTHONPATH": str(tree)}
        | ({} if capable else {"LD_LIBRARY_PATH": libraries}),
        user=NOBODY if capable else None,
    )
    assert code == (0 if capable else 3)
