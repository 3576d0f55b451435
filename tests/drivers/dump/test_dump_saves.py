# SPDX-License-Identifier: Apache-2.0
"""Machines that a real QEMU saved in every way it has, equal to ``pmemsave`` and ``info registers`` page by page."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from drivers.dump.saving_qemu import Qemu, check_memory, check_registers, qemu
from needs import missing

from libmicrovmi_py import DriverUnavailableError, InvalidArgumentError, Microvmi

MIB, GIB = 1 << 20, 1 << 30
SIZE = 32 * MIB


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("saves")


@pytest.fixture(scope="module")
def machine(folder: Path) -> Iterator[Qemu]:
    """One machine with a disk for its snapshots."""
    if shutil.which("qemu-img") is None:
        missing("no qemu-img; to enable: apt-get install qemu-utils")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(folder / "disk"), "3G"], check=True)
    drive = f"if=none,id=disk,format=qcow2,file={folder / 'disk'}"
    with qemu(folder, "pc", "32M", ["-drive", drive]) as made:
        made.run(1.0)
        yield made


def same(path: Path, machine: Qemu, end: int = SIZE, **options: str) -> None:
    """The file has all that the machine has, which stands, below 4 GiB."""
    with Microvmi(driver="dump", path=path, **options) as opened:
        assert opened.max_addr == end
        check_memory(opened, 0, machine.memory(path.with_suffix(".memory"), 0, SIZE))
        check_registers(opened, machine.registers())


def test_snapshots_in_a_disk_are_found_by_name_and_the_latest_without(
    folder: Path, machine: Qemu, caplog: pytest.LogCaptureFixture
) -> None:
    machine.run(0.1)
    machine.human("savevm first")
    same(folder / "disk", machine)
    first = machine.memory(folder / "first", 0, SIZE)
    machine.run(1.1)
    machine.human("savevm second")
    caplog.clear()
    same(folder / "disk", machine)
    assert "2 saved machines, '1' ('first'), '2' ('second'): the latest is opened, '2' ('second')" in caplog.text
    same(folder / "disk", machine, snapshot="second")
    for name in ("first", "1"):
        with Microvmi(driver="dump", path=folder / "disk", snapshot=name) as opened:
            check_memory(opened, 0, first)
    with pytest.raises(InvalidArgumentError, match=r"snapshot=third: .* has 2 saved machines, '1' \('first'\)"):
        Microvmi(driver="dump", path=folder / "disk", snapshot="third")


def test_a_stream_at_the_start_of_a_volume(folder: Path, machine: Qemu) -> None:
    """As Proxmox keeps it."""
    machine.run(0.1)
    machine.save(folder / "stream")
    with (folder / "stream").open("r+b") as file:
        file.truncate(file.seek(0, 2) + 64 * MIB)
    same(folder / "stream", machine)


MAPPED = {"alone": ["mapped-ram"], "by several threads": ["mapped-ram", "multifd"]}


@pytest.mark.parametrize("way", MAPPED)
def test_mapped_ram(folder: Path, machine: Qemu, way: str) -> None:
    if not machine.can("mapped-ram"):
        return  # QEMU 9 has it; see test_dump_mapped.py
    machine.run(0.1)
    machine.save(folder / "mapped", *MAPPED[way], uri="file:{}")
    same(folder / "mapped", machine)


def backend(path: Path, name: str, mib: int, *, share: bool = False) -> list[str]:
    """Memory that has something on every page before the machine starts."""
    made = random.Random(name).randbytes(1 << 16)
    path.write_bytes(b"".join(number.to_bytes(4096, "little") + made[4096:] for number in range(mib << 4)))
    options = f"memory-backend-file,id={name},size={mib}M,mem-path={path},share={'on' if share else 'off'}"
    return ["-object", options]


LOW = "max-ram-below-4g=16M"
NODES = {
    "pc, two nodes of different sizes": ("pc", [("small", 16), ("large", 32)], "", 0),
    "q35, part above 4 GiB": ("q35", [("one", 32), ("two", 16)], LOW, 0),
    "q35, nodes of one size": ("q35", [("one", 24), ("two", 24)], LOW, 0),
    "pc, with memory plugged in": ("pc", [("base", 16), ("more", 32)], LOW, 2),
}


@pytest.mark.parametrize("name", NODES)
def test_memory_of_several_backends_is_where_the_machine_has_it(tmp_path: Path, name: str) -> None:
    board, nodes, more, plugged = NODES[name]
    options: list[str] = []
    for node, mib in reversed(nodes) if name.startswith("pc,") else nodes:
        options += backend(tmp_path / node, node, mib)
    for node, _ in nodes:
        options += ["-numa", f"node,memdev={node}"]
    for number in range(plugged):
        options += [*backend(tmp_path / f"d{number}", f"d{number}", 16), "-device", f"pc-dimm,memdev=d{number}"]
    with qemu(tmp_path, f"{board},{more}".rstrip(","), "48M,slots=2,maxmem=1G", options) as made:
        made.run(0.7)
        made.save(tmp_path / "saved")
        parts = [(0, 16 * MIB), (4 * GIB, 32 * MIB)] if more else [(0, 48 * MIB)]
        if plugged:
            parts.append((5 * GIB, 32 * MIB))
        with Microvmi(driver="dump", path=tmp_path / "saved") as opened:
            assert opened.max_addr == sum(parts[-1])
            for start, size in parts:
                check_memory(opened, start, made.memory(tmp_path / "memory", start, size))
            check_registers(opened, made.registers())


def test_shared_memory_that_was_left_out(tmp_path: Path) -> None:
    """The file of its backend has it, which is to be named; without it the rest is opened if that is main memory."""
    plugged = [*backend(tmp_path / "plugged", "plugged", 16, share=True), "-device", "pc-dimm,memdev=plugged"]
    with qemu(tmp_path, "pc", "32M,slots=2,maxmem=1G", plugged) as made:
        made.run(0.7)
        made.save(tmp_path / "saved", "x-ignore-shared")
        same(tmp_path / "saved", made, 4 * GIB + 16 * MIB)
        with Microvmi(driver="dump", path=tmp_path / "saved", parts=tmp_path / "plugged") as opened:
            check_memory(opened, 4 * GIB, made.memory(tmp_path / "memory", 4 * GIB, 16 * MIB))
    main = backend(tmp_path / "main", "main", 32, share=True)
    with qemu(tmp_path, "pc,memory-backend=main", "32M", main) as made:
        made.run(0.3)
        made.save(tmp_path / "saved", "x-ignore-shared")
        with pytest.raises(
            DriverUnavailableError, match=r"without its main memory, main, .*: name the file of its back"
        ):
            Microvmi(driver="dump", path=tmp_path / "saved")
        same(tmp_path / "saved", made, parts=str(tmp_path / "main"))
