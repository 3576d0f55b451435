# SPDX-License-Identifier: Apache-2.0
"""docs/ffi.md: the same program in every language, built and run as the page says, sees the same of one live guest."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from needs import EXTRAS, ROOT, missing

from libmicrovmi_py import Microvmi
from libmicrovmi_py.linux.kernel import Kernel

from . import oracle
from .guest import Config, Guest, banner_of

pytestmark = pytest.mark.parametrize("booted", [Config("private")], indirect=True, ids=str)

PAGE = (ROOT / "docs" / "ffi.md").read_text()
PROGRAMS = ROOT / "c_tests" / "languages"
LIMIT = 300
"""Seconds for one command, a compiler's first run among them."""

PACKAGES = dict(re.findall(r"^\| ([^|]+) \| [^|]+ \| ([^|]+) \| \[[Ll]ook", PAGE, re.MULTILINE))
"""What the page's table says of each language: Debian's packages."""

NOWHERE = "vmi://no-such-driver/"
"""A machine that cannot be opened, which a program that tries to says."""
USAGE = "usage: look TARGET PHYSICAL VIRTUAL [CODE]"
NO_ADDRESS = "look: {}: not an address, which is 0x and up to 16 hexadecimal digits"


def blocks(title: str, language: str) -> list[str]:
    """The blocks of a language's section that are tagged ``language``."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def titles() -> list[str]:
    """The sections that have commands, but for what this machine's Debian has not: such a Java in 12, and OCaml's
    ``ctypes.foreign`` since 13."""
    found = [title for title in re.findall(r"^## (.+)$", PAGE, re.MULTILINE) if blocks(title, "sh")]
    lacks = {"Java 22 and later": java() < 22, "OCaml": lacks_foreign()}
    return [title for title in found if not lacks.get(title)]


def lacks_foreign() -> bool:
    """Whether Debian's package is there, and what a part of it needs is not: it is another library since Debian 13."""
    if shutil.which("ocamlfind") is None:
        return False
    asked = (["ocamlfind", "query", *words] for words in (["ctypes"], ["-recursive", "ctypes.foreign"]))
    return [subprocess.run(words, capture_output=True).returncode == 0 for words in asked] == [True, False]


def java() -> int:
    """The version of the machine's Java; 0 without one."""
    if shutil.which("java") is None:
        return 0
    told = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', told)
    return int(version[1]) if version else 0


@dataclass(frozen=True)
class Expected:
    """Where the programs look, and what is there by QEMU's and the guest's own word."""

    arguments: tuple[str, str]
    code: str
    lines: tuple[str, str, str]


@pytest.fixture(scope="module")
def places(booted: Guest) -> tuple[int, int]:
    """The virtual addresses of the kernel's banner, and of a function that every tick of its clock calls."""
    symbols = Kernel.find(Microvmi.open(booted.uri)).symbols
    return symbols.address("linux_banner"), symbols.address("ktime_get")


@pytest.fixture
def expected(paused: Guest, places: tuple[int, int]) -> Expected:
    """What all of them have to say of the guest that stands."""
    banner, code = places
    physical = oracle.translated(paused.monitor, banner)
    assert physical is not None
    content = oracle.physical(paused.monitor, physical, 256)
    text = content.partition(b"\n")[0].decode()
    assert banner_of(text) == paused.banner
    rip = oracle.registers(paused.monitor)[0]["rip"]
    lines = (content[:16].hex(" "), text, f"rip {rip:#x}")
    return Expected((hex(physical), hex(banner)), hex(code), lines)


@pytest.fixture(scope="module")
def environment(library_path: Path, include_dir: Path) -> dict[str, str]:
    """That of somebody who has installed the library, and in a process of whom nobody changed the locale."""
    found = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "TMPDIR")}
    library = str(library_path.parent)
    own = {"LD_LIBRARY_PATH": library, "LIBRARY_PATH": library, "CPATH": str(include_dir), "LC_ALL": "C.UTF-8"}
    return {
        **found,
        **own,
        "NODE_PATH": str(EXTRAS / "node_modules"),
        "PATH": f"{Path(sys.executable).parent}:{found['PATH']}",
    }


@dataclass(frozen=True)
class Program:
    """One language's, built, in a folder of its own."""

    command: list[str]
    folder: Path
    environment: Mapping[str, str]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run([*self.command, *arguments], self.folder, self.environment)


@pytest.fixture(scope="module", params=titles())
def program(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> Program:
    """That of every language, built once for all tests."""
    folder = tmp_path_factory.mktemp("languages") / "programs"
    shutil.copytree(PROGRAMS, folder)
    return Program(build(request.param, folder, environment), folder, environment)


def build(title: str, folder: Path, environment: Mapping[str, str]) -> list[str]:
    """Do what the section says, up to its last line, which is returned as words."""
    (block,) = blocks(title, "sh")
    *before, last = block.strip().splitlines()
    for line in before:
        if line.startswith("npm install"):
            continue  # make extras did
        line = line.replace("/usr/local/lib", environment["LD_LIBRARY_PATH"])
        lacking(title, next(word for word in line.split() if "=" not in word), environment)
        done = subprocess.run(
            line, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    lacking(title, last.split()[0], environment, folder)
    if title == "Node" and not (EXTRAS / "node_modules" / "koffi").is_dir():
        missing("no koffi in build/extras; to enable: apt-get install npm, then make extras")
    assert last.split()[-3:] == ["TARGET", "PHYSICAL", "VIRTUAL"]
    return last.split()[:-3]


def lacking(title: str, program: str, environment: Mapping[str, str], folder: Path = ROOT) -> None:
    """End the test where a program of the section is not there."""
    if shutil.which(program, path=environment["PATH"]) is None and not (folder / program).exists():
        packages = PACKAGES[title.partition(":")[0]].replace("`", "").replace(",", "")
        missing(f"no {program}; to enable: apt-get install {packages}")


def run(command: list[str], folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
    )


def test_every_language_sees_the_same(program: Program, expected: Expected, paused: Guest) -> None:
    done = program.run(paused.uri, *expected.arguments)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "".join(f"{line}\n" for line in expected.lines))
    assert paused.monitor.status() == "paused"

    paused.monitor.execute("cont")
    done = program.run(paused.uri, *expected.arguments, expected.code)
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr, len(lines)) == (0, "", 4), done.stdout
    assert (*lines[:2], lines[3]) == (*expected.lines[:2], f"breakpoint {expected.code}")
    assert paused.monitor.status() == "running"

    done = program.run(NOWHERE, *expected.arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("there is no driver no-such-driver"), done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), USAGE),
        ((NOWHERE, "0x1000"), USAGE),
        ((NOWHERE, "0x1000", "0x2000", "0x7c50", "0x7c50"), USAGE),
        ((NOWHERE, "zz", "0x2000"), NO_ADDRESS.format("zz")),
        ((NOWHERE, "0x1000", "4096"), NO_ADDRESS.format("4096")),
        ((NOWHERE, "0x1000", "0x2000", "0x1g"), NO_ADDRESS.format("0x1g")),
        ((NOWHERE, "0x", "0x2000"), NO_ADDRESS.format("0x")),
        ((NOWHERE, "0x+1", "0x2000"), NO_ADDRESS.format("0x+1")),
        ((NOWHERE, "0x10000000000000000", "0x2000"), NO_ADDRESS.format("0x10000000000000000")),
    ],
    ids=["nothing", "too few", "too many", "letters", "decimal", "code", "no digits", "sign", "65 bits"],
)
def test_a_wrong_command_line_is_told_before_a_machine_is_opened(
    program: Program, arguments: tuple[str, ...], line: str, booted: Guest
) -> None:
    done = program.run(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{line}\n")


@pytest.mark.parametrize("virtual", ["0x700000", "0x100000", "0xa000"], ids=["zeros", "zero first", "line's end first"])
def test_of_an_empty_text_the_line_is_empty(program: Program, virtual: str, booted: Guest) -> None:
    done = program.run("vmi://fake/?size=0x200000", "0x1000", virtual)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "01 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00\n\nrip 0xfff0\n"


def test_the_page_has_a_section_and_a_program_for_every_language(booted: Guest) -> None:
    sections = {title.partition(":")[0] for title in re.findall(r"^## (.+)$", PAGE, re.MULTILINE)}
    assert sections - set(PACKAGES) == {"What holds everywhere"}
    assert set(PACKAGES) <= sections
    linked = set(re.findall(r"\(\.\./c_tests/languages/([^)]+)\)", PAGE))
    assert linked == {path.name for path in PROGRAMS.iterdir() if path.is_file()}


def test_the_packages_of_the_page_are_those_of_ci(booted: Guest) -> None:
    listed = (ROOT / ".ci" / "packages").read_text().split()
    # By .ci/setup, by .ci/run; not in Debian 12.
    given = {"gcc", "python3", "nodejs", "npm", "openjdk-25-jdk-headless"}
    named = {name for text in PACKAGES.values() for name in re.findall("`([^`]+)`", text)}
    assert named - given <= set(listed)


def test_the_short_program_in_cpp_runs(booted: Guest, tmp_path: Path, environment: dict[str, str]) -> None:
    (block,) = blocks("C++", "cpp")
    (tmp_path / "short.cpp").write_text(block)
    done = run(["c++", "-Wall", "-Wextra", "-Werror", "-o", "short", "short.cpp", "-lmicrovmi"], tmp_path, environment)
    assert done.returncode == 0, done.stderr
    done = run(["./short", "vmi://fake/"], tmp_path, environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"01, 1 ranges of memory\n.+\n", done.stdout), done.stdout


def test_the_parameters_in_python_are_taken(booted: Guest, stubs: ModuleType, library_path: Path) -> None:
    (block,) = blocks("Python: ctypes with generated stubs", "python")
    names = {"mv": stubs, "lib": stubs.load(library_path), "ctypes": ctypes}
    names["error"] = ctypes.POINTER(ctypes.c_char)()
    exec(block, names)
    assert names["vm"] is None
    text = ctypes.string_at(names["error"]).decode()
    names["lib"].rs_cstring_free(names["error"])
    assert "memflow_connector_name" in text
