# SPDX-License-Identifier: Apache-2.0
"""A guest's memory over NBD, by a real nbdkit: what QEMU itself saves of it, as fast as a file of the same bytes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from needs import missing

from . import oracle
from .guest import MIB, Config, Guest
from .packages import ROOT

ONE = pytest.mark.parametrize("booted", [Config("private")], indirect=True, ids=str)
LEAST_RATIO = 0.8
LEAST_RUNS, MOST_RUNS = 5, 40


@pytest.fixture(autouse=True)
def programs() -> None:
    if None in (shutil.which("nbdkit"), shutil.which("nbdcopy"), shutil.which("qemu-img")):
        missing("no NBD; to enable: apt-get install nbdkit nbdkit-plugin-python libnbd-bin qemu-utils")


@contextmanager
def served(guest: Guest, *options: str, ended_by: signal.Signals = signal.SIGTERM) -> Iterator[str]:
    """``microvmi nbd``, as a user runs it; the URI."""
    line = [sys.executable, "-m", "libmicrovmi_py.command", "nbd", guest.name, *options]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.send_signal(ended_by)
            code = process.wait(30)
    assert code == -ended_by


def saved(guest: Guest, path: Path) -> Path:
    """What QEMU writes of it; where there is no memory, and a device answers, zeros."""
    guest.monitor.execute("pmemsave", val=0, size=guest.config.size, filename=str(path))
    with path.open("r+b") as file:
        end = 0
        for item in oracle.memory_map(guest.monitor):
            hole = min(item.start, guest.config.size) - end
            if hole > 0:
                file.seek(end)
                file.write(bytes(hole))
            end = item.end
    return path


def same(one: Path, other: Path) -> bool:
    return subprocess.run(["cmp", "-s", one, other], check=False).returncode == 0


@ONE
def test_what_is_copied_is_what_qemu_saves(paused: Guest, tmp_path: Path) -> None:
    """By libnbd's program and QEMU's, of a snapshot and of the machine."""
    expected = saved(paused, tmp_path / "saved")
    for options in ((), ("--live",)):
        with served(paused, *options) as uri:
            subprocess.run(["nbdcopy", uri, tmp_path / "copy"], check=True, timeout=60)
            assert same(tmp_path / "copy", expected)
            (tmp_path / "copy").unlink()
    with served(paused, "--live") as uri:
        line = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri, str(tmp_path / "disk")]
        subprocess.run(line, check=True, timeout=60)
    line = ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", str(expected), str(tmp_path / "disk")]
    subprocess.run(line, check=True, timeout=60, stdout=subprocess.DEVNULL)
    assert (tmp_path / "disk").stat().st_size < paused.config.size // 2, "holes were not told"


@ONE
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_a_guest_that_was_paused_for_it_runs_again(guest: Guest, number: signal.Signals, tmp_path: Path) -> None:
    with served(guest, "--pause", "--socket", str(tmp_path / "socket"), ended_by=number) as uri:
        assert guest.monitor.status() == "paused"
        subprocess.run(["nbdcopy", uri, "null:"], check=True, timeout=60)
    end = time.monotonic() + 10
    while guest.monitor.status() != "running":  # nbdkit notices that we were killed
        assert time.monotonic() < end, "nobody let it run"
        time.sleep(0.05)


@ONE
@pytest.mark.alone
def test_it_is_about_as_fast_as_a_file_of_the_same_bytes(paused: Guest, tmp_path: Path) -> None:
    """In turns, with nbdkit's own plugin for files. All bytes: a copy around holes is too short."""
    image = saved(paused, tmp_path / "image")
    subprocess.run(["cp", "--sparse=always", image, tmp_path / "sparse"], check=True)
    socket = tmp_path / "file"
    line = ["nbdkit", "--foreground", "--readonly", "--unix", str(socket), "file", str(tmp_path / "sparse")]
    with served(paused) as uri, subprocess.Popen(line) as other:
        try:
            while not socket.exists():
                time.sleep(0.01)
            ours, file = fastest([uri, f"nbd+unix:///?socket={socket}"])
            print(f"{paused.config.size / MIB / ours:.0f} MiB/s, {file / ours:.2f} of the file's")
            assert file / ours >= LEAST_RATIO
        finally:
            other.terminate()


def fastest(uris: list[str]) -> list[float]:
    """The shortest times, in turns: of more runs where the host is busy with other things."""
    best = [float("inf") for _ in uris]
    for count in range(1, MOST_RUNS + 1):
        for index, uri in enumerate(uris):
            start = time.perf_counter()
            subprocess.run(["nbdcopy", "--no-extents", uri, "null:"], check=True, timeout=60)
            best[index] = min(best[index], time.perf_counter() - start)
        if count >= LEAST_RUNS and best[1] / best[0] >= LEAST_RATIO:
            break
    return best


@ONE
def test_a_guest_runs_again_if_nbdkit_crashes(guest: Guest) -> None:
    line = [sys.executable, "-m", "libmicrovmi_py.command", "nbd", guest.name, "--pause"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert guest.monitor.status() == "paused"
        (nbdkit,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(nbdkit), signal.SIGKILL)
        said = process.communicate(timeout=30)[1]
    assert (process.returncode, guest.monitor.status()) == (1, "running")
    assert said.endswith("microvmi: nbdkit ended by signal 9\n")
