# SPDX-License-Identifier: Apache-2.0
"""A dump over NBD, by a real nbdkit, read by libnbd's programs: by the plugin in C and by the one in Python."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command.running import piped
from needs import missing

from libmicrovmi_py.errors import InvalidArgumentError, IoError
from libmicrovmi_py.export import elf, lime
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.tools.nbd import server

ROOT = Path(__file__).resolve().parents[3]
SIZE = 8 << 20
DATA = 5 << 20
"""Where there is something, beside the first bytes."""


@pytest.fixture(scope="module")
def nbdkit() -> str:
    if None in (shutil.which("nbdkit"), shutil.which("nbdcopy")):
        missing("nothing to serve with; to enable: apt-get install nbdkit nbdkit-plugin-python libnbd-bin")
    return str(shutil.which("nbdkit"))


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """One with holes."""
    path = tmp_path / "a dump"
    with path.open("wb") as file:
        file.write(b"first")
        file.seek(DATA)
        file.write(os.urandom(256 << 10))
        file.truncate(SIZE)
    return path


@pytest.fixture
def place() -> Iterator[server.Place]:
    with server.private_place() as found:
        yield found
    assert not Path(found.path).parent.exists()


def copied(uri: str, target: Path) -> bytes:
    """What a client reads."""
    subprocess.run(["nbdcopy", uri, target], check=True, timeout=60)
    return target.read_bytes()


def told(uri: str, *words: str) -> Any:
    """What ``nbdinfo`` says of it."""
    done = subprocess.run(["nbdinfo", "--json", *words, uri], stdout=subprocess.PIPE, check=True, timeout=60)
    return json.loads(done.stdout)


def raw_lines(nbdkit: str, dump: Path, place: server.Place) -> dict[str, list[str]]:
    """Command lines for the memory as it is, by the plugin."""
    line = server.command(nbdkit, server.Export(str(dump), "live"), place)
    python = server.command(nbdkit, server.Export(str(dump), "live", "lime"), place)
    return {"c": line, "python": [*python[:-1], "format=raw"]}


@pytest.mark.parametrize("plugin", ["c", "python"])
def test_every_byte_is_served_and_holes_are_told(
    nbdkit: str, dump: Path, place: server.Place, tmp_path: Path, plugin: str
) -> None:
    line = raw_lines(nbdkit, dump, place)[plugin]
    if plugin == "c" and line[-3] == "python":
        missing("the plugin in C is not built; to enable: apt-get install nbdkit-plugin-dev, then make lib")
    with server.running(line, place):
        assert copied(place.uri, tmp_path / "copy") == dump.read_bytes()
        (export,) = told(place.uri)["exports"]
        assert (export["export-size"], export["is_read_only"], export["can_multi_conn"]) == (SIZE, True, True)
        extents = [(item["offset"], item["length"], item["type"]) for item in told(place.uri, "--map")]
        assert extents == [
            (0, 4096, 0),
            (4096, DATA - 4096, 3),
            (DATA, 256 << 10, 0),
            (DATA + (256 << 10), SIZE - DATA - (256 << 10), 3),
        ]


@pytest.mark.parametrize("form", [elf, lime])
def test_files_of_other_formats_are_those_that_are_written(
    nbdkit: str, dump: Path, place: server.Place, tmp_path: Path, form: Any
) -> None:
    with Microvmi.open(str(dump)) as machine:
        layout = form(machine)
        expected = bytearray(layout.size)
        layout.read_into(0, expected)
    with server.running(server.command(nbdkit, server.Export(str(dump), "live", form.__name__), place), place):
        assert copied(place.uri, tmp_path / "copy") == expected


def test_a_snapshot_is_of_one_moment(nbdkit: str, place: server.Place, tmp_path: Path) -> None:
    export = server.Export(f"vmi://fake/?size={SIZE}", "snapshot")
    with server.running(server.command(nbdkit, export, place), place):
        assert len(copied(place.uri, tmp_path / "copy")) == SIZE


def test_a_machine_that_cannot_be_opened_is_one_line(nbdkit: str, place: server.Place) -> None:
    line = server.command(nbdkit, server.Export("/no/such", "live"), place)
    with (
        pytest.raises(IoError, match=r"nbdkit does not serve: .*/no/such.*No such file") as caught,
        server.running(line, place),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_a_read_that_fails_is_told_and_the_next_is_served(nbdkit: str, dump: Path, place: server.Place) -> None:
    with server.running(server.command(nbdkit, server.Export(str(dump), "live"), place), place) as process:
        os.truncate(dump, 1 << 20)
        # one request at a time: nbdkit 1.32 itself fails an assertion when a client hangs up on several
        line = ["nbdcopy", "--no-extents", "--connections=1", "--requests=1", place.uri, "null:"]
        failed = subprocess.run(line, capture_output=True, check=False, timeout=60)
        assert failed.returncode != 0
        assert told(place.uri)["exports"][0]["export-size"] == SIZE
        process.terminate()
        lines: list[str] = []
        server.relay(process, lines.append)
        assert any("became shorter" in line for line in lines), lines


def test_only_this_computer_is_listened_at() -> None:
    assert server.loopback("1234").uri == "nbd://127.0.0.1:1234"
    assert server.loopback("[::1]:1234").uri == "nbd://[::1]:1234"
    assert server.loopback("localhost:1234").options == ["--ipaddr", "127.0.0.1", "--port", "1234"]
    for wrong in ("0.0.0.0:1", "example.org:1", "127.0.0.1:0", "127.0.0.1:x", "65536"):
        with pytest.raises(InvalidArgumentError):
            server.loopback(wrong)


def test_what_the_shell_s_command_ends_with_is_the_exit_code(nbdkit: str, dump: Path) -> None:
    line = [sys.executable, "-m", "libmicrovmi_py.command", "nbd", str(dump), "--run", 'nbdinfo --size "$uri"; exit 7']
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (7, str(SIZE))


def test_nbdkit_ends_with_whoever_started_it(nbdkit: str, dump: Path, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "libmicrovmi_py.command", "nbd", str(dump), "--socket", str(tmp_path / "socket")]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        uri = process.stdout.readline().strip()
        assert told(uri)["exports"][0]["export-size"] == SIZE
        process.send_signal(signal.SIGKILL)
    end = time.monotonic() + 20
    while subprocess.run(["nbdinfo", uri], capture_output=True, check=False, timeout=60).returncode == 0:
        assert time.monotonic() < end, "nbdkit still serves"
        time.sleep(0.05)


def test_a_machine_that_a_crash_during_the_start_left_paused_runs_again(tmp_path: Path) -> None:
    journal, nbdkit = tmp_path / "journal", tmp_path / "nbdkit"
    nbdkit.write_text('#!/bin/sh\ncase "$*" in *--foreground*) kill -SEGV $$;; esac\n')
    nbdkit.chmod(0o755)
    done = piped("nbd", f"vmi://watched/?path={journal}", "--pause", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert (done.code, "nbdkit does not serve" in done.err) == (1, True), done
    assert "run" in journal.read_text().splitlines()


def test_who_serves_there_already_is_not_taken_for_nbdkit(nbdkit: str, dump: Path, place: server.Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = server.loopback(str(other.getsockname()[1]))
        with (
            pytest.raises(IoError, match="already: take another port"),
            server.running(server.command(nbdkit, server.Export(str(dump), "live"), taken), taken),
        ):
            pass
    Path(place.path).touch()
    with pytest.raises(IoError, match="is there already"), server.running([nbdkit], place):
        pass


def test_a_socket_is_its_user_s_to_connect_to_and_goes_at_the_end(nbdkit: str, dump: Path, place: server.Place) -> None:
    line, before = server.command(nbdkit, server.Export(str(dump), "live"), place), os.umask(0)
    try:
        with server.running(line, place):
            assert Path(place.path).stat().st_mode & 0o022 == 0  # who may write to it connects
    finally:
        os.umask(before)
    assert not Path(place.path).exists()


def test_a_runtime_directory_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away: run the tests as root")
    os.chown(tmp_path, 12345, 12345)
    for folder in (tmp_path, tmp_path / "missing"):
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
        with server.private_place() as place:
            assert tmp_path not in Path(place.path).parents
