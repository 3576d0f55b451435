# SPDX-License-Identifier: Apache-2.0
"""What is told of a Linux guest whose kernel lies anywhere (KASLR), beside what the guest says of itself.

In CI on the kernels that are fetched anyway; on those of all Debians, from 11 to sid, by ``make test-long``.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from needs import missing

from libmicrovmi_py import Microvmi
from libmicrovmi_py.linux.kernel import Kernel
from libmicrovmi_py.linux.log import log
from libmicrovmi_py.linux.tasks import tasks

from . import initramfs
from .counting import LONG
from .guest import QEMU, QEMU_ARM64, Boot, Config, Guest
from .kernels import IN_CI, OTHERS, Release, busybox_of, kernel_of
from .packages import ROOT, Unobtainable

SETUP = b"""
(while :; do sleep 1000; done) &
sh -c 'while :; do sleep 1000; done' name 'an argument' &
asleep=$!
sleep 1
tell() { echo "begin $1"; cat; echo "end $1"; }
{
    md5sum < /sys/kernel/btf/vmlinux | tell btf
    grep -v '\\[' /proc/kallsyms | md5sum | tell kallsyms
    tell $asleep < /proc/$asleep/maps
    dmesg | tell dmesg
} > /tmp/told 2>&1
cat /tmp/told > /dev/console
(while :; do
    ps -o pid,ppid,stat,args > /tmp/ps
    for name in /proc/[0-9]*/comm; do
        read comm 2> /dev/null < $name && echo "$name $comm"
    done > /tmp/names
    { tell names < /tmp/names; tell ps < /tmp/ps; } > /tmp/told
    cat /tmp/told > /dev/console
    sleep 0.5
done) &
echo "printer $!" > /dev/console
"""
"""A process in a shell that waits, one with arguments; then what the guest says of itself, its processes again and
again."""

PATIENCE = 60.0


@pytest.fixture(scope="module", params=[*IN_CI, *(OTHERS if LONG else [])], ids=str)
def guest(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    release: Release = request.param
    program = QEMU_ARM64 if release.arm64 else QEMU
    try:
        if shutil.which(program) is None:
            raise Unobtainable(f"{program} is not installed")
        kernel, busybox = kernel_of(release), busybox_of(release)
    except Unobtainable as err:
        missing(f"no Linux guest: {err}; to enable: apt-get install qemu-system-x86 qemu-system-arm busybox-static")
    initrd = tmp_path_factory.mktemp("boot") / "initramfs.cpio"
    initramfs.build(busybox, initrd, {initramfs.SETUP: SETUP})
    boot = Boot(kernel, initrd, program, "ttyAMA0" if release.arm64 else "ttyS0")
    config = Config(machine="virt", cpu="cortex-a57", line="") if release.arm64 else Config(line="")
    with Guest(config, boot, patience=(120.0, 120.0)) as guest:
        yield guest


@pytest.fixture(scope="module")
def machine(guest: Guest) -> Iterator[Microvmi]:
    with Microvmi.open(guest.uri) as machine:
        yield machine


@pytest.fixture(scope="module")
def kernel(machine: Microvmi) -> Kernel:
    return Kernel.find(machine)


def told(guest: Guest, what: str) -> list[str]:
    """The lines that the guest printed last of something."""
    end, deadline = f"\nend {what}\n", time.monotonic() + PATIENCE
    while end not in (console := guest.console.replace("\r\n", "\n")):
        assert time.monotonic() < deadline, f"the guest says nothing of {what}: {console[-2000:]}"
        time.sleep(0.1)
    before = console[: console.rindex(end)]
    return before[before.rindex(f"begin {what}\n") :].split("\n")[1:]


def command(*words: str) -> str:
    """What ``microvmi`` prints."""
    line = [sys.executable, "-m", "libmicrovmi_py.command", *words]
    done = subprocess.run(line, env={"PYTHONPATH": str(ROOT)}, cwd="/", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---------------------------------------------------------------------------------------------------- processes ---


Row = tuple[int, int, str, str]
"""Process, parent, command or name, and the state of what is of the kernel, which does not change all the time."""

WORKER = re.compile(r"(kworker/u?\d[^-+]*)[-+].*")
"""A worker of the kernel's with what it works on, which changes all the time."""


def of_guest(lines: list[str], names: dict[int, str], last: int) -> list[Row]:
    """What the guest's own ``ps`` says, without the commands that its shells start again and again.

    Its busybox cuts names in brackets: ``names`` are those that /proc has.
    """
    rows = []
    for line in lines[1:]:
        pid, parent, state, args = line.split(None, 3)
        if pid == "2" or parent == "2":
            rows.append((int(pid), int(parent), WORKER.sub(r"\1", names.get(int(pid), args)), state[0]))
        elif int(pid) <= last:
            args = re.sub(r"^\{.*?\} ", "", args)  # in front of arguments that do not begin with the name
            rows.append((int(pid), int(parent), args, ""))
    return rows


def of_command(document: list[dict[str, Any]], last: int) -> list[Row]:
    """The same of ``microvmi ps --json``."""
    return [
        (row["pid"], row["parent"], WORKER.sub(r"\1", row["name"]), row["state"])
        if row["kernel"]
        else (row["pid"], row["parent"], " ".join(row["arguments"]), "")
        for row in document
        if row["kernel"] or row["pid"] <= last
    ]


def test_ps_is_what_the_guest_s_own_ps_says(guest: Guest) -> None:
    """The guest is stopped as soon as it has said it. Workers may have begun something else meanwhile, but few have."""
    found = re.search(r"printer (\d+)", guest.console)
    assert found
    last, deadline = int(found[1]), time.monotonic() + PATIENCE
    expected: list[Row] = []
    actual: list[Row] | None = None
    while expected != actual:
        assert time.monotonic() < deadline, set(expected) ^ set(actual or ())
        count = guest.console.count("end ps")
        while guest.console.count("end ps") == count:
            time.sleep(0.005)
        guest.monitor.execute("stop")
        names = {int(line.split("/")[2]): line.split(" ", 1)[1] for line in told(guest, "names")}
        expected = of_guest(told(guest, "ps"), names, last)
        document = json.loads(command("ps", guest.uri, "--json"))
        actual = of_command(document, last)
        guest.monitor.execute("cont")
    assert len(expected) > 30
    assert any("an argument" in row[2] for row in expected)
    workers = [row for row in document if WORKER.fullmatch(row["name"])]
    same = [row for row in workers if names[row["pid"]] == row["name"]]
    assert len(same) > len(workers) / 2 > 1


def test_ps_of_a_guest_that_runs_has_what_lasts(guest: Guest) -> None:
    lines = command("ps", guest.uri).splitlines()
    assert lines[0].split() == ["PID", "PPID", "UID", "S", "COMMAND"]
    rows = [line.split(None, 4) for line in lines[1:]]
    assert rows[0][:3] == ["1", "0", "0"]
    assert rows[0][4] == "/bin/busybox sh /init"
    assert any(row[4].endswith("name an argument") for row in rows)


def test_processes_that_come_and_go_do_not_break_the_list(kernel: Kernel) -> None:
    pids = [[task.pid for task in tasks(kernel, threads=True)] for _ in range(40)]
    assert all(item[:2] == [1, 2] and len(item) == len(set(item)) for item in pids)
    assert len({tuple(item) for item in pids}) > 1, "nothing came or went"


def test_the_memory_of_a_process_is_what_proc_maps_says(guest: Guest, kernel: Kernel) -> None:
    for pid in (match[1] for match in re.finditer(r"begin (\d+)\r?\n", guest.console)):
        task = next(task for task in tasks(kernel) if task.pid == int(pid))
        lines = [line.split(None, 5) for line in told(guest, pid)]
        expected = [(line[0], line[1], int(line[2], 16), line[5] if len(line) > 5 else "") for line in lines]
        actual = [
            (f"{item.start:08x}-{item.end:08x}", item.rights, item.offset, item.path.decode()) for item in task.maps()
        ]
        assert actual == expected
        assert any(item[3] == "/bin/busybox" for item in actual)
        space = task.space
        assert space is not None
        assert space.read_virtual(int(actual[0][0].split("-")[0], 16), 4) == b"\x7fELF"


# -------------------------------------------------------------------------------------------------- the kernel ----


def test_the_kernel_is_what_the_guest_says(guest: Guest, kernel: Kernel) -> None:
    assert kernel.banner.split(" #")[0] == guest.banner.split(" # ")[0]
    assert kernel.release == guest.banner.split(" ")[2]
    assert re.fullmatch("[0-9a-f]{40}", kernel.build_id or "")
    assert kernel.kaslr_offset or kernel.architecture == "aarch64", "the kernel lies where it was linked to"


def test_symbols_are_those_of_proc_kallsyms(guest: Guest, kernel: Kernel) -> None:
    lines = "".join(f"{address:016x} {kind} {name}\n" for address, kind, name in kernel.symbols)
    assert told(guest, "kallsyms") == [f"{hashlib.md5(lines.encode()).hexdigest()}  -"]
    address = kernel.symbols.address("schedule")
    assert kernel.symbols.at(address + 3) == ("schedule", 3)
    assert address in kernel.symbols.all("schedule")


def test_types_are_the_kernel_s_own(guest: Guest, kernel: Kernel) -> None:
    assert kernel.btf is not None
    assert told(guest, "btf") == [f"{hashlib.md5(kernel.btf).hexdigest()}  -"]
    assert kernel.types is not None
    task = kernel.types.struct("task_struct")
    assert task.field("comm").size == 16
    assert task.offset("tasks.prev") == task.offset("tasks") + 8


def test_the_log_is_what_dmesg_says(guest: Guest, kernel: Kernel) -> None:
    expected = told(guest, "dmesg")
    actual = [text for line in log(kernel) for text in line.lines()]
    assert actual[: len(expected)] == expected
    assert len(expected) > 100
    printed = command("log", guest.uri).splitlines()
    assert printed[: len(expected)] == [line.replace("\t", "\\t") for line in expected]


def test_without_a_note_the_kernel_is_found_by_the_registers(guest: Guest, machine: Microvmi, kernel: Kernel) -> None:
    assert kernel.note is not None
    place = kernel.note.address + 12
    name = machine.read_physical(place, 10)
    assert name == b"VMCOREINFO"
    machine.write_physical(place, bytes(10))
    try:
        found = Kernel.find(machine)
    finally:
        machine.write_physical(place, name)
    assert found.note is None
    assert list(found.symbols) == list(kernel.symbols)
    assert found.release == kernel.release
    assert [task.pid for task in tasks(found)][:2] == [1, 2]
    if "linux_banner" in kernel.symbols:  # one that names functions only does not say where these are
        assert (found.build_id, found.phys_base) == (kernel.build_id, kernel.phys_base)
        assert next(log(found)) == next(log(kernel))
