# SPDX-License-Identifier: Apache-2.0
"""Mounted by the kernel: what programs read is what the machine has, and every end of it leaves nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from needs import missing
from tools.mount.mounts import ROOT, check_fuse, is_mounted, mount, until
from transport.other_user import NOBODY, need_root

MACHINE = "vmi://fake/?size=0x300000&holes=0x100000-0x180000&vcpus=2"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A dump that has a hole."""
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.write(os.urandom(0x180000 + 123))
        file.seek(0x500000)
        file.write(os.urandom(0x1000))
    return path


def test_programs_read_what_the_machine_has(image: Path, tmp_path: Path) -> None:
    with mount(tmp_path, str(image)) as mounted:
        memory = mounted.folder / "memory"
        assert memory.read_bytes() == image.read_bytes()
        subprocess.run(["cmp", memory, image], check=True)
        subprocess.run(
            ["dd", f"if={memory}", "iflag=direct", "bs=1M", f"of={tmp_path}/copy", "status=none"], check=True
        )
        assert (tmp_path / "copy").read_bytes() == image.read_bytes()
        assert sorted(os.listdir(mounted.folder)) == ["map.json", "memory", "memory.elf", "vcpus"]


def test_a_sparse_copy_has_the_holes(image: Path, tmp_path: Path) -> None:
    with mount(tmp_path, str(image)) as mounted:
        subprocess.run(["cp", "--sparse=auto", mounted.folder / "memory", tmp_path / "copy"], check=True)
    assert (tmp_path / "copy").read_bytes() == image.read_bytes()
    assert (tmp_path / "copy").stat().st_blocks * 512 < 0x300000


def test_any_part_can_be_read(image: Path, tmp_path: Path) -> None:
    content = image.read_bytes()
    with mount(tmp_path, str(image)) as mounted, (mounted.folder / "memory").open("rb", buffering=0) as file:
        for offset, size in ((0, 1), (4095, 2), (0x17FFFF, 3), (0x501000 - 5, 10), (0x501000, 10), (1 << 40, 10)):
            assert os.pread(file.fileno(), size, offset) == content[offset : offset + size]


def test_nothing_can_be_changed(image: Path, tmp_path: Path) -> None:
    with mount(tmp_path, str(image)) as mounted:
        for write in ((mounted.folder / "memory").write_bytes, (mounted.folder / "new").write_bytes):
            with pytest.raises(OSError, match="Read-only file system"):
                write(b"x")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_unmounts_though_a_file_is_open(tmp_path: Path, number: signal.Signals) -> None:
    with mount(tmp_path, MACHINE) as mounted:
        file = os.open(mounted.folder / "memory", os.O_RDONLY)
        assert len(os.pread(file, 16, 0x1000)) == 16
        mounted.process.send_signal(number)
        assert mounted.ended() == -number
        with pytest.raises(OSError, match="not connected"):
            os.pread(file, 16, 0x200000)
        os.close(file)


def test_who_reads_all_the_time_gets_an_error_when_it_ends(tmp_path: Path) -> None:
    errors: list[OSError] = []

    def read(path: Path) -> None:
        try:
            with path.open("rb", buffering=0) as file:
                while os.pread(file.fileno(), 1 << 20, 0):
                    pass
        except OSError as err:
            errors.append(err)

    with mount(tmp_path, "--live", MACHINE) as mounted:
        readers = [threading.Thread(target=read, args=[mounted.folder / "memory"]) for _ in range(4)]
        for reader in readers:
            reader.start()
        time.sleep(0.2)
        mounted.process.terminate()
        assert mounted.ended() == -signal.SIGTERM
        for reader in readers:
            reader.join(20)
        assert len(errors) == 4


def test_a_kill_unmounts(tmp_path: Path) -> None:
    with mount(tmp_path, MACHINE) as mounted:
        mounted.process.kill()
        assert mounted.ended() == -signal.SIGKILL


def test_it_ends_when_somebody_unmounts_it(tmp_path: Path) -> None:
    with mount(tmp_path, MACHINE) as mounted:
        subprocess.run(["fusermount3", "-u", mounted.folder], check=True)
        assert mounted.ended() == 0


def test_what_others_mount_in_its_place_stays(tmp_path: Path) -> None:
    """It sleeps while that happens."""
    with mount(tmp_path, MACHINE) as first:
        first.process.send_signal(signal.SIGSTOP)
        subprocess.run(["fusermount3", "-u", first.folder], check=True)
        with mount(tmp_path, MACHINE) as second:
            first.process.send_signal(signal.SIGCONT)
            assert first.process.wait(20) == 0
            assert len((second.folder / "memory").read_bytes()) == 0x300000


def test_a_folder_with_a_strange_name_does(tmp_path: Path) -> None:
    folder = tmp_path / "a,b\\c\nd -o"
    folder.mkdir()
    with mount(folder, MACHINE) as mounted:
        assert len((mounted.folder / "memory").read_bytes()) == 0x300000
        mounted.process.terminate()
        mounted.process.wait(20)
        assert not (mounted.folder / "memory").exists()


PROGRAM = """
import importlib, os, sys
for name in {modules}:
    importlib.import_module(f"libmicrovmi_py.{{name}}")
os.setgroups([]); os.setresgid(*[{nobody}] * 3); os.setresuid(*[{nobody}] * 3)
sys.argv[1:1] = ["mount"]
sys.exit(importlib.import_module("libmicrovmi_py.command.main").main())
"""
MODULES = (
    *(
        "command.main",
        "command.views",
        "command.parser",
        "command.subcommands.mount",
        "drivers.dump.formats.raw",
        "drivers.dump.known",
    ),
    *("linux.kernel", "machine.spaces", "memory.virtual_direct", "tools.mount.ending", "tools.mount.serving"),
    "tools.mount.tree",
)
"""What it takes: that user need not be able to read this folder."""

SCRIPT = r"""
cd {folder}
mknod -m 666 fuse c 10 229 && mount --bind fuse /dev/fuse || exit 77
as="setpriv --reuid {nobody} --regid {nobody} --clear-groups"
"$0" -c "$1" {folder}/image {folder}/place --for 60 > said 2>&1 &
for try in $(seq 300); do grep -q '^mounted at' said && break; sleep 0.1; done
$as cmp place/memory image || exit 1
ls place 2> /dev/null && exit 2
kill -TERM $!
wait $!
grep {folder}/place /proc/self/mounts && exit 3
exit 0
"""


def test_a_user_without_root_mounts_and_nobody_else_reads(image: Path) -> None:
    """In a mount namespace of its own, where every user may open /dev/fuse, as udev has it."""
    check_fuse()
    need_root()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        shutil.copy(image, f"{folder}/image")
        os.chmod(f"{folder}/image", 0o644)
        os.mkdir(f"{folder}/place")
        os.chown(f"{folder}/place", NOBODY, NOBODY)
        script = SCRIPT.format(folder=folder, nobody=NOBODY)
        program = PROGRAM.format(modules=MODULES, nobody=NOBODY)
        env = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
        command = ["unshare", "-m", "sh", "-c", script, sys.executable, program]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode == 77:
            missing(f"no /dev/fuse for users can be made: {done.stderr}; to enable: run it with CAP_MKNOD")
        assert done.returncode == 0, (done, Path(folder, "said").read_text())


def test_without_a_folder_it_says_so(tmp_path: Path) -> None:
    check_fuse()
    command = [sys.executable, "-m", "libmicrovmi_py.command", "mount", MACHINE, str(tmp_path / "nosuch")]
    env = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("microvmi: ")
    assert "No such file" in done.stderr.splitlines()[-1]


def test_a_signal_while_it_is_being_mounted_leaves_no_mount(tmp_path: Path) -> None:
    check_fuse()
    did, place, program = tmp_path / "did", tmp_path / "place", tmp_path / "fusermount3"
    place.mkdir()
    slow = f'{shutil.which("fusermount3")} "$@" || exit; case "$*" in *-u*) ;; *) touch {did}; sleep 1;; esac'
    program.write_text(f"#!/bin/sh\n{slow}\n")
    program.chmod(0o755)
    line = [sys.executable, "-m", "libmicrovmi_py.command", "mount", MACHINE, str(place)]
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    try:
        with subprocess.Popen(line, env=env, cwd=ROOT, stdin=subprocess.DEVNULL) as process:
            until(lambda: did.exists() or process.poll() is not None, "it does not begin to mount")
            process.terminate()
        assert process.returncode == -signal.SIGTERM
        assert not is_mounted(place)
    finally:
        if is_mounted(place):
            subprocess.run(["fusermount3", "-u", "-z", place], check=False)
