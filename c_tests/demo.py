# SPDX-License-Identifier: Apache-2.0
"""Shows the library at work: C programs and the command look into an image, a made-up machine and a real one of QEMU.

Needs the built library, a C compiler and the standard library. The programs run with an empty environment: nothing of
the build but the library itself is there to help them. Exits with 1 if anything is not as it should be.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "build" / "lib"
PROGRAMS = ("mem-dump", "regs-dump", "pause", "events", "translate", "trace", "who-writes")
FRAME = 4096
MIB = 1 << 20
SHOWN = 6
"""Lines of a program's output that are worth the reader's time."""

GUEST = 64 * MIB
VIDEO = (0xA0000, 0xC0000)
"""No memory without a video card."""

TABLE = 0x8000
PAGES = {0: 0x83, 1: 0x800087, 512: 0x83}
"""Entries of the guest's page table, by their numbers: a page of 4 MiB each, of which one is the user's as well."""


COUNTER = 0x9000
"""Where the guest counts, in a loop."""

COUNTING = b"\x66\xff\x06" + COUNTER.to_bytes(2, "little")
"""The instruction that does: inc dword [COUNTER]."""


class DemoError(Exception):
    """Something is not as it should be."""


def check(holds: bool, what: str) -> None:
    """Say that ``what`` is so, or end the demo."""
    if not holds:
        raise DemoError(f"not so: {what}")
    print(f"  ok: {what}")


def compile_programs(work: Path) -> None:
    """Build the example programs, as any user of the library would."""
    compiler = shlex.split(os.environ.get("CC") or "cc")
    print(f"$ {compiler[0]} -o mem-dump mem-dump.c -lmicrovmi      # so also {', '.join(PROGRAMS[1:])}")
    for name in PROGRAMS:
        source = ROOT / "c_tests" / "examples" / f"{name}.c"
        flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'include'}", f"-L{LIBRARY}"]
        rpath = ["-Xlinker", "-rpath", "-Xlinker", str(LIBRARY)]
        subprocess.run([*compiler, *flags, *rpath, "-o", str(work / name), str(source), "-lmicrovmi"], check=True)


def run(work: Path, *command: str, code: int = 0) -> str:
    """Run a program in ``work`` with an empty environment, show it, and return all it printed."""
    print(f"\n$ {shlex.join(command)}")
    ended = subprocess.run(
        [str(work / command[0]), *command[1:]],
        cwd=work,
        env={},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    show(ended.stdout)
    if ended.returncode != code:
        raise DemoError(f"{command[0]} ended with {ended.returncode}, not with {code}")
    return ended.stdout


def show(text: str) -> None:
    """Print the first lines of ``text``."""
    lines = text.splitlines()
    for line in lines[:SHOWN]:
        print(f"  {line}")
    if len(lines) > SHOWN:
        print(f"  ... {len(lines) - SHOWN} more lines")


def registers(text: str) -> list[dict[str, int]]:
    """What regs-dump printed: one mapping a vCPU."""
    return [
        {name: int(value, 0) for name, value in (line.split() for line in part.splitlines())}
        for part in text.strip().split("\n\n")
    ]


# ------------------------------------------------------------------------------------------- an image, a fake -----


def demo_image(work: Path) -> None:
    """A raw image: half of it is a hole, which the copy keeps."""
    print("\n--- a memory image of 8 MiB with known contents, and a hole of 4 MiB in it")
    with open(work / "image.raw", "wb") as image:
        image.write(b"".join(number.to_bytes(8, "little") for number in range(2 * MIB // 8)))
        image.seek(6 * MIB)
        image.write(b"libmicrovmi!" * (2 * MIB // 12))
        image.truncate(8 * MIB)
    run(work, "mem-dump", "-o", "image.dump", "./image.raw")
    check(
        (work / "image.dump").read_bytes() == (work / "image.raw").read_bytes(), "the dump is the image, byte by byte"
    )
    check((work / "image.dump").stat().st_blocks * 512 < 5 * MIB, "the hole takes no room in the dump")
    refused = run(work, "regs-dump", "./image.raw", code=1)
    check(refused.startswith("regs-dump: cannot") and "dump" in refused, "an image has no registers, and says so")


def demo_fake(work: Path) -> None:
    """The machine made of bytes that is shipped for users' tests."""
    print("\n--- vmi://fake/, a machine made of bytes: each frame holds its own number, one is missing")
    run(work, "mem-dump", "-o", "fake.dump", "vmi://fake/?holes=0x4000-0x5000&vcpus=2")
    frames = [b"" if frame == 4 else frame.to_bytes(8, "little") for frame in range(MIB // FRAME)]
    expected = b"".join((content or bytes(8)) * (FRAME // 8) for content in frames)
    check((work / "fake.dump").read_bytes() == expected, "every frame is at its address, the missing one is zeros")
    found = registers(run(work, "regs-dump", "vmi://fake/?vcpus=2"))
    check([vcpu["rip"] for vcpu in found] == [0xFFF0, 0xFFF0], "two vCPUs, both at the reset vector")
    paused = run(work, "pause", "-t", "0.2", "vmi://fake/")
    check(paused == "paused for 0.2 s\nrunning\n", "paused, and running again")
    seen = run(work, "events", "-n", "3", "vmi://fake/", "cr3", "msr:0x174").splitlines()
    check(seen[0] == "vcpu 0 cr3 0 -> 0x1000" and len(seen) == 3, "three events were seen, and the guest went on")


# ---------------------------------------------------------------------------------------------------- a real one ---


class Monitor:
    """As much QMP as this needs: connect, one command, hang up. QEMU serves one client at a time."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def execute(self, command: str, **arguments: object) -> object:
        """Run a command and return its result."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(self._path)
            with sock.makefile("rw", encoding="utf-8") as stream:
                stream.readline()
                self._ask(stream, "qmp_capabilities", {})
                return self._ask(stream, command, {key.replace("_", "-"): arguments[key] for key in arguments})

    @staticmethod
    def _ask(stream: TextIO, command: str, arguments: dict[str, object]) -> object:
        stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        stream.flush()
        for line in stream:
            reply = json.loads(line)
            if "event" not in reply:
                if "return" not in reply:
                    raise DemoError(f"QEMU refused {command}: {reply}")
                return reply["return"]
        raise DemoError("QEMU hung up")

    def running(self) -> bool:
        """Whether the guest runs."""
        status = self.execute("query-status")
        return isinstance(status, dict) and status["status"] == "running"


def boot_sector() -> bytes:
    """A system of 512 bytes: it switches paging on, with one table of three pages, and counts. 16-bit code."""
    code = b"\xfa\x31\xc0\x8e\xc0\x8e\xd8\xbf" + TABLE.to_bytes(2, "little")  # es = ds = 0; di = TABLE
    code += b"\xb9\x00\x04\x66\x31\xc0\xf3\x66\xab"  # 1024 entries of zeros
    for number, entry in PAGES.items():
        code += b"\x66\xc7\x06" + (TABLE + 4 * number).to_bytes(2, "little") + entry.to_bytes(4, "little")
    for value, register in ((TABLE, 0xD8), (0x10, 0xE0), (0x80000001, 0xC0)):  # cr3, cr4, cr0
        code += b"\x66\xb8" + value.to_bytes(4, "little") + bytes([0x0F, 0x22, register])
    return (code + COUNTING + b"\xeb\xf9").ljust(510, b"\0") + b"\x55\xaa"


@contextmanager
def guest(qemu: str, work: Path, name: str) -> Iterator[Monitor]:
    """A machine with two vCPUs that runs its firmware and what that boots; ended when the block is left."""
    where = work / "qmp"
    (work / "disk").write_bytes(boot_sector().ljust(MIB, b"\0"))
    command = [qemu, "-name", name, "-accel", "tcg", "-m", str(GUEST // MIB), "-smp", "2", "-display", "none"]
    command += ["-nodefaults", "-qmp", f"unix:{where},server=on,wait=off"]
    command += ["-drive", f"file={work / 'disk'},format=raw"]
    print(f"$ {shlex.join(command[:9])} ... &")
    with (
        open(work / "qemu.log", "w+") as log,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log) as process,
    ):
        try:
            wait_for_socket(process, where, log)
            yield Monitor(where)
        finally:
            process.terminate()


def wait_for_socket(process: subprocess.Popen[bytes], path: Path, log: TextIO) -> None:
    """Until QEMU listens."""
    end = time.monotonic() + 10
    while not path.exists():
        if process.poll() is not None or time.monotonic() > end:
            log.seek(0)
            raise DemoError(f"QEMU did not start: {log.read().strip()}")
        time.sleep(0.02)
    time.sleep(0.5)  # let the firmware do something worth looking at


def demo_qemu(work: Path) -> None:
    """A running, unpatched QEMU machine, found by its name."""
    print("\n--- a virtual machine of QEMU")
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        print("left out: no qemu-system-x86_64 in PATH (Debian, Ubuntu: apt install qemu-system-x86)")
        return
    name = f"microvmi-demo-{os.getpid()}"
    with guest(qemu, work, name) as monitor:
        demo_pause(work, name, monitor)
        monitor.execute("stop")
        demo_registers(work, name, monitor)
        demo_memory(work, name, monitor)
        demo_virtual(work, name, monitor)
        demo_command(work, name)
        check(not monitor.running(), "the machine was stopped before, and still is")
        monitor.execute("cont")
        demo_events(work, name, monitor)


def demo_pause(work: Path, name: str, monitor: Monitor) -> None:
    """QEMU itself says that the machine stands still, and that it goes on."""
    print(f"\n$ pause -t 1 {name} &")
    command = [str(work / "pause"), "-t", "1", name]
    with subprocess.Popen(command, env={}, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        show(program.stdout.readline())
        check(not monitor.running(), "QEMU says: paused")
        show(program.stdout.read())
    check(program.returncode == 0 and monitor.running(), "QEMU says: running")


def demo_registers(work: Path, name: str, monitor: Monitor) -> None:
    """The same registers as in QEMU's own list."""
    found = registers(run(work, "regs-dump", name))
    text = str(monitor.execute("human-monitor-command", command_line="info registers -a"))
    values = dict.fromkeys(("EAX", "ESP", "EIP", "CR0", "CR3"), "")
    for vcpu, part in enumerate(text.split("CPU#")[1:]):
        words = dict(word.split("=", 1) for word in part.split() if word.count("=") == 1 and not word.endswith("="))
        for register in values:
            mine = found[vcpu][register.lower().replace("e", "r", 1)]
            if mine != int(words[register], 16):
                raise DemoError(f"vCPU {vcpu}: {register} is {mine:#x}, and QEMU says {words[register]}")
    check(len(found) == text.count("CPU#") == 2, f"{', '.join(values)} of both vCPUs are what QEMU says")


def demo_memory(work: Path, name: str, monitor: Monitor) -> None:
    """The same memory as QEMU saves itself."""
    run(work, "mem-dump", "-o", "qemu.dump", name)
    monitor.execute("pmemsave", val=0, size=GUEST, filename=str(work / "qemu.pmemsave"))
    mine, theirs = ((work / item).read_bytes() for item in ("qemu.dump", "qemu.pmemsave"))
    check(len(mine) == GUEST, f"{GUEST // MIB} MiB")
    same = mine[: VIDEO[0]] == theirs[: VIDEO[0]] and mine[VIDEO[1] :] == theirs[VIDEO[1] :]
    check(same, "every byte is what QEMU's own pmemsave has")
    check(any(mine[: VIDEO[0]]), "and there is something in it")


def demo_virtual(work: Path, name: str, monitor: Monitor) -> None:
    """The same virtual addresses as QEMU lists."""
    monitor.execute("cont")
    end = time.monotonic() + 30
    while "CR0=8" not in str(monitor.execute("human-monitor-command", command_line="info registers")):
        if time.monotonic() > end:
            raise DemoError("the guest does not come to switch paging on")
        time.sleep(0.05)
    monitor.execute("stop")
    listed = str(monitor.execute("human-monitor-command", command_line="info tlb")).split()
    theirs = {int(item.rstrip(":"), 16): int(place, 16) for item, place in zip(listed[::3], listed[1::3], strict=True)}
    inside = {virtual + 0x1234: physical + 0x1234 for virtual, physical in theirs.items()}
    printed = run(work, "translate", name, *map(hex, inside), "0xc0000000").splitlines()[1:]
    mine = {int(virtual, 16): int(place, 16) for virtual, place, *_ in map(str.split, printed[:-1])}
    check(mine == inside and len(mine) == len(PAGES), "each is where QEMU's own list has its page")
    check("not present: level 2, entry 0x0 " in printed[-1], "where no page is, the entry that says so is told")


def demo_events(work: Path, name: str, monitor: Monitor) -> None:
    """What the guest does, told while it does it: it stands at each event, and runs on behind the last."""
    place = 0x7C00 + boot_sector().index(COUNTING)
    traced = run(work, "trace", "-n", "3", name, hex(place)).splitlines()
    check(all(f"  {place:#x}  rdi=" in line for line in traced) and len(traced) == 3, "a breakpoint in its loop")
    *written, _ = run(work, "who-writes", "-n", "3", name, hex(COUNTER), "4").splitlines()
    check(all(f"before {place + len(COUNTING):#x}  now " in line for line in written), "who writes its counter")
    numbers = [int(line.split()[-1], 0) for line in written]
    check(numbers == list(range(numbers[0], numbers[0] + 3)), "each write was told, none twice")
    told = run(work, "microvmi", "events", name, "--no-symbols", "--step", "--vcpu", "0", "--count", "4").splitlines()
    places = {line.split()[4] for line in told if "single_step" in line}
    check(len(places) == 2, "step by step it goes between the loop's two instructions")
    check(monitor.running(), "QEMU says: running")


COMMAND = """\
import sys
sys.path.insert(0, sys.argv.pop(1))
from libmicrovmi_py.command.main import main
sys.exit(main())
"""


def demo_command(work: Path, name: str) -> None:
    """The same machine by the command: what it is, a picture of it that stays, and what has changed since."""
    launched = shlex.join([sys.executable, "-I", "-c", COMMAND, str(ROOT)])
    (work / "microvmi").write_text(f'#!/bin/sh\nexec {launched} "$@"\n')
    (work / "microvmi").chmod(0o755)
    check("qemu" in run(work, "microvmi", "info", name), "the command knows it as well")
    run(work, "microvmi", "snapshot", name, "now.elf")
    page = (work / "qemu.dump").read_bytes()[TABLE : TABLE + 16].hex(" ")
    printed = run(work, "microvmi", "read", "./now.elf", hex(TABLE), "16")
    check(page in " ".join(printed.split()), "and keeps its memory")
    printed = run(work, "microvmi", "diff", "./now.elf", name)
    check("\n0 frames " in printed, "a machine that stands still does not change")


def main() -> int:
    """Run all of it; 0 if every check held."""
    try:
        with tempfile.TemporaryDirectory(prefix="microvmi-demo-") as directory:
            work = Path(directory)
            compile_programs(work)
            demo_image(work)
            demo_fake(work)
            demo_qemu(work)
    except (DemoError, OSError, ValueError, KeyError, subprocess.SubprocessError) as err:
        print(f"\nthe demo failed: {err}", file=sys.stderr)
        return 1
    print("\nAll as it should be.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
