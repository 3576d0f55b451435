# SPDX-License-Identifier: Apache-2.0
"""What README and docs show works as it stands there, on a live guest; tests/documentation says what runs elsewhere."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from command.running import environment
from documentation.blocks import NOT_CODE, ROOT, SHELLS, Block, Command, blocks, commands
from documentation.elsewhere import runs_block, runs_command
from needs import with_extra
from tools.mount.mounts import check_fuse
from transport.other_user import NOBODY, run_as_nobody

from libmicrovmi_py._native import laying

from .guest import Boot, Config, Guest
from .oracle import SCRATCH
from .shown import C_AROUND, PRIVILEGED, PYTHON_AROUND, SECONDS, SIGNALLED, Places, Shell, as_shown

pytestmark = pytest.mark.parametrize("booted", [Config("private")], indirect=True, ids=str)

HERE = [block for block in blocks() if block.language != NOT_CODE]
STORY = "docs/tutorial.md"
"""A page whose blocks go on from each other; programs are saved under the name that their first line has."""
CONSOLES = [[b] for b in HERE if b.language in SHELLS and b.page != STORY and not all(map(runs_command, commands(b)))]
CONSOLES += [[b for b in HERE if b.page == STORY]]
PROGRAMS = [b for b in HERE if b.language in ("c", "python") and b.page != STORY and not runs_block(b)]
IMAGE = "docs/drivers/dump.md"
"""The page whose examples are of an image."""
FILE = re.compile(r"(?:#|/\*) (\w+\.\w+)")


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty one, in memory if there is such."""
    with tempfile.TemporaryDirectory(dir=SCRATCH, prefix="pages-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is in ``/usr/local`` for who reads the pages."""
    root, local = tmp_path_factory.mktemp("installed"), "/usr/local"
    folders = (f"{local}/{name}" for name in ("lib", "include", "bin", "share"))
    laying.main("install", str(ROOT / "build"), str(root), local, *folders)
    return Path(f"{root}{local}")


@pytest.fixture
def places(guest: Guest, boot: Boot, programs: Path, installed: Path) -> Places:
    """What the pages name, here."""
    return Places(guest.name, programs, installed / "lib", installed / "include", boot.kernel)


@pytest.mark.parametrize("page", CONSOLES, ids=lambda page: page[0].name)
def test_the_commands_of_a_page_do_what_it_shows(page: list[Block], places: Places, folder: Path) -> None:
    text = "".join(block.text for block in page if block.language in SHELLS)
    for word, extra in (("microvmi vol", "volatility3"), ("drgn", "drgn")):
        if word in text:
            with_extra(extra)
    if "mount" in text or "nbdfuse" in text:
        check_fuse()
    with Shell(folder, places) as shell:
        given(text, shell)
        for block in page:
            if block.language not in SHELLS:
                (folder / FILE.match(block.text)[1]).write_text(block.text)  # type: ignore[index]
                continue
            for command in commands(block):
                if not runs_command(command):
                    as_shown(command, shell.run(command))


def given(text: str, shell: Shell) -> None:
    """What a page says that there is before its block begins."""
    if "script.py" in text:
        (shell.folder / "script.py").write_text("print(prog['jiffies_64'])\n")
    if "/tmp/debian" in text:
        serve = f"microvmi nbd {shell.places.guest} --socket {shell.folder}/debian &"
        shell.run(Command("", 0, serve, shown=("nbd",)))


CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE = 1 << 2, 1 << 19


@pytest.mark.parametrize(
    ("capabilities", "umask", "says"),
    [
        (0, 0o007, "PermissionDeniedError"),
        (CAP_SYS_PTRACE, 0o007, "PermissionDeniedError"),
        (CAP_SYS_PTRACE | CAP_DAC_READ_SEARCH, 0o007, "bytes"),
        (CAP_SYS_PTRACE | CAP_DAC_READ_SEARCH, 0o022, "DriverUnavailableError"),
    ],
    ids=["none", "one", "both", "a group that may not write"],
)
def test_the_rights_that_pages_tell_are_what_it_takes(capabilities: int, umask: int, says: str, guest: Guest) -> None:
    """The socket is as QEMU makes it with that umask, in a folder of the reader's group with the setgid bit."""
    for path, mode in ((guest.directory, 0o2750), (Path(guest.monitor.path), 0o777 & ~umask)):
        os.chown(path, -1, NOBODY)
        path.chmod(mode)
    told = run_as_nobody(PRIVILEGED.format(uri=guest.uri, capabilities=capabilities))
    assert told.split()[0] == says, told


@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: block.name)
def test_the_programs_of_a_page_run(
    block: Block, guest: Guest, folder: Path, include_dir: Path, library_path: Path
) -> None:
    image = folder / "image.raw"
    image.write_bytes(bytes(1 << 20))
    uri = str(image) if block.page == IMAGE else guest.uri
    text = re.sub(r"(?<=[\"=])debian(?=\")", guest.name, block.text)
    text = text.replace("microvmi_list_vms(NULL", 'microvmi_list_vms("qemu"')
    if block.language == "c":
        compiled = compile_c(text, folder, include_dir, library_path)
        run([str(compiled), uri], folder)
    elif found := re.match(r"# (\S+\.py), for: (microvmi scan .*)\n", text):
        (folder / found[1]).write_text(text)
        words = shlex.split(found[2])[2:]
        run([sys.executable, "-m", "libmicrovmi_py.command", "scan", "--only", guest.name, *words], folder)
    else:
        run_python(text, uri, folder)


def compile_c(text: str, folder: Path, include_dir: Path, library_path: Path) -> Path:
    """A program of it; what is none by itself is put into one."""
    older = "microvmi_snapshot(vm, NULL, &error)" if "older" in text else "NULL"
    whole = text if "int main" in text else C_AROUND.format(block=text, older=older)
    (folder / "shown.c").write_text(whole)
    compiler = shlex.split(os.environ.get("CC") or "cc")
    where = [f"-I{include_dir}", f"-L{library_path.parent}", f"-Wl,-rpath,{library_path.parent}"]
    command = [*compiler, "-Wall", *where, "-o", str(folder / "shown"), str(folder / "shown.c"), "-lmicrovmi"]
    subprocess.run(command, check=True, timeout=SECONDS)
    return folder / "shown"


def run_python(text: str, uri: str, folder: Path) -> None:
    """A program of it, which is interrupted after its first line if it goes on for ever."""
    whole = text if re.search(r"^(from|import) ", text, re.MULTILINE) else PYTHON_AROUND.format(uri=uri) + text
    (folder / "shown.py").write_text(whole)
    run([sys.executable, "-u", "shown.py"], folder, for_ever="while (event :=" in text)


def run(command: list[str], folder: Path, for_ever: bool = False) -> None:
    """Run it to its end, or until it has printed a line. It has to work."""
    path = f"{ROOT}:{ROOT / 'tests'}"
    with subprocess.Popen(
        [*SIGNALLED, *command],
        cwd=folder,
        env=environment(PYTHONPATH=path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        if for_ever:
            assert process.stdout.readline()
            process.send_signal(signal.SIGINT)
        told, _ = process.communicate(timeout=SECONDS)
        assert for_ever or process.returncode == 0, told
