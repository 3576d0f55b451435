# SPDX-License-Identifier: Apache-2.0
"""``microvmi dump`` and ``snapshot``: what is in the file, what it takes, and what an interrupted run leaves."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from command.running import MICROVMI, Done, environment, interrupted, one_line, piped

from libmicrovmi_py import Microvmi

MIB = 1 << 20
SIZE = 4 * MIB
MACHINE = f"vmi://fake/?size={SIZE:#x}&holes=0x4000-0x6000&vcpus=2"


def memory_of(uri: str) -> list[tuple[int, bytes]]:
    """The ranges of a machine, with what is in them."""
    with Microvmi.open(uri) as machine:
        return [(item.start, machine.read_physical(item.start, item.size)) for item in machine.memory_map()]


@pytest.mark.parametrize("ending", ["lime", "elf"])
def test_a_dump_has_the_memory_that_exists_and_no_other(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"dump.{ending}"
    assert piped("dump", MACHINE, path).code == 0
    assert memory_of(str(path)) == memory_of(MACHINE)
    assert os.listdir(tmp_path) == [path.name]


def test_a_raw_dump_has_zeros_for_what_does_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    assert piped("dump", MACHINE, path, "--live").code == 0
    content = path.read_bytes()
    assert len(content) == SIZE
    assert all(content[start : start + len(data)] == data for start, data in memory_of(MACHINE))
    assert not any(content[0x4000:0x6000])


def test_an_elf_core_has_the_registers_of_all_vcpus(tmp_path: Path) -> None:
    path = tmp_path / "core"
    assert piped("snapshot", MACHINE, path).code == 0
    with Microvmi.open(str(path)) as dump, Microvmi.open(MACHINE) as machine:
        assert [state["rip"] for state in dump.read_states()] == [state["rip"] for state in machine.read_states()]


def test_a_pipe_gets_what_a_file_gets(tmp_path: Path) -> None:
    whole, copied = tmp_path / "whole", tmp_path / "copied"
    assert piped("dump", MACHINE, whole).code == 0
    with copied.open("wb") as file:
        command = [*MICROVMI, "dump", MACHINE, "-"]
        assert subprocess.run(command, env=environment(), stdout=file, timeout=60, check=False).returncode == 0
    assert copied.read_bytes() == whole.read_bytes()


def test_zeros_take_no_room(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    assert piped("dump", "vmi://fake/?size=0x2000000&pattern=zero", path).code == 0
    assert path.stat().st_size == 0x2000000
    assert path.stat().st_blocks * 512 < MIB
    assert path.stat().st_mode & 0o77 == 0, "a guest's memory is nobody's else"


def test_a_file_that_is_there_is_replaced_with_force_alone(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    path.write_text("mine")
    done = piped("dump", MACHINE, path)
    assert (done.code, one_line(done.err)) == (1, f"{path} is there already: --force replaces it")
    assert path.read_text() == "mine"
    assert piped("dump", MACHINE, path, "--force").code == 0
    assert path.stat().st_size == SIZE


def test_standard_output_is_not_wanted_twice() -> None:
    done = piped("dump", MACHINE, "-", "--json")
    assert (done.code, done.out) == (2, "")


# ------------------------------------------------------------------------------------------- what is interrupted ----


@pytest.fixture
def watched(tmp_path: Path) -> Callable[..., str]:
    """A machine of 4 MiB that takes a few seconds to read; its parameters."""

    def uri(identity: str = "one", pattern: str = "number") -> str:
        words = f"path={tmp_path / 'journal'}&slow=read&delay=0.004&identity={identity}&pattern={pattern}"
        return f"vmi://watched/?size={SIZE:#x}&{words}"

    return uri


def cut(uri: str, path: Path, *words: str, number: signal.Signals = signal.SIGINT) -> Done:
    """A dump that is interrupted when the first MiB is written, and nobody would say that it is the whole."""

    def begun(_: str) -> bool:
        try:
            with open(f"{path}.partial", "rb") as file:
                file.seek(MIB - 8)
                return any(file.read(8))
        except FileNotFoundError:
            return False

    return interrupted(number, ["dump", uri, str(path), *words], begun)


def test_a_live_dump_goes_on_where_it_ended(watched: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "dump"
    done = cut(watched(), path, "--live")
    assert done.code == -signal.SIGINT
    assert f"{path}.partial has " in done.out
    assert "--resume goes on with it" in done.out
    assert not path.exists()
    assert piped("dump", watched(pattern="zero"), path, "--resume").code == 0
    content = path.read_bytes()
    earlier = b"".join(data for _, data in memory_of(f"vmi://fake/?size={SIZE:#x}"))
    assert len(content) == SIZE
    assert content[:MIB] == earlier[:MIB], "it began anew"
    assert not any(content[-MIB:]), "it did not go on"
    assert not (tmp_path / "dump.partial").exists()


def test_what_a_killed_run_left_is_gone_on_with(watched: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "dump"
    assert cut(watched(), path, "--live", number=signal.SIGKILL).code == -signal.SIGKILL
    assert piped("dump", watched(), path, "--live", "--resume").code == 0
    assert path.read_bytes() == b"".join(data for _, data in memory_of(f"vmi://fake/?size={SIZE:#x}"))


def test_it_does_not_go_on_for_another_machine_or_format_nor_without_being_asked(
    watched: Callable[..., str], tmp_path: Path
) -> None:
    path = tmp_path / "dump"
    cut(watched(), path, "--live")
    before = Path(f"{path}.partial").read_bytes()
    for uri, words, reason in (
        (watched("two"), ["--resume"], "is of another machine"),
        (watched(), ["--resume", "--format", "lime"], "is of another format"),
        (watched(), ["--resume", "--snapshot"], "a snapshot cannot go on with it, --live can"),
        (watched(), ["--live"], "--resume goes on with it, --force begins anew"),
    ):
        done = piped("dump", uri, path, *words)
        assert done.code == 1, done
        assert reason in done.err.splitlines()[-1]
        assert Path(f"{path}.partial").read_bytes() == before


def test_of_one_moment_nothing_stays(watched: Callable[..., str], tmp_path: Path) -> None:
    assert cut(watched(), tmp_path / "dump", "--pause").code == -signal.SIGINT
    assert {path.name for path in tmp_path.iterdir()} == {"journal"}
    assert (tmp_path / "journal").read_text().split()[-2:] == ["run", "close"]


def test_a_machine_that_cannot_be_told_from_another_leaves_nothing(watched: Callable[..., str], tmp_path: Path) -> None:
    assert cut(watched(identity=""), tmp_path / "dump", "--live").code == -signal.SIGINT
    assert {path.name for path in tmp_path.iterdir()} == {"journal"}


def test_two_do_not_write_one_file(tmp_path: Path) -> None:
    partial = tmp_path / "dump.partial"
    with partial.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = piped("dump", MACHINE, tmp_path / "dump")
    assert (done.code, partial.stat().st_size) == (1, 0)
    assert "is being written by another process" in done.err


@pytest.mark.parametrize("content", [b"mine", b"{}" * 2048, b'{"microvmi": 1, "done": 7}'.ljust(4096), b"\0" * 8192])
def test_a_file_of_somebody_else_is_left_alone(content: bytes, tmp_path: Path) -> None:
    partial = tmp_path / "dump.partial"
    partial.write_bytes(content)
    for words in ([], ["--resume"]):
        done = piped("dump", MACHINE, tmp_path / "dump", "--live", *words)
        assert (done.code, partial.read_bytes()) == (1, content)
        assert "nothing that can be gone on with" in done.err


def test_a_full_disk_is_told_and_the_machine_is_left_as_it_was() -> None:
    done = piped("dump", MACHINE, "/dev/full", "--live")
    assert (done.code, one_line(done.err)) == (1, "/dev/full: No space left on device")
