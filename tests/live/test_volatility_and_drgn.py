# SPDX-License-Identifier: Apache-2.0
"""volatility3 and drgn on a Linux guest whose kernel lies anywhere (KASLR), in private memory, without symbol files."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from needs import EXTRAS, with_extra

from . import initramfs, packages
from .guest import Boot, Config, Guest

SETUP = b"""
ifconfig lo 127.0.0.1 up
mkdir /tmp/served
echo hello > /tmp/served/file
httpd -p 127.0.0.1:8080 -h /tmp/served
FOO=bar sleep 100000 < /tmp/served/file &
sleep 1
echo PROCESSES > /dev/console
ps -o pid,comm > /dev/console
"""
PASSING = ("exe", "kworker", "ps", "sh", "sleep")
"""Names of processes that come and go."""

TASKS = """
from drgn.helpers.linux import for_each_task
for task in for_each_task(prog):
    print(task.pid.value_(), task.comm.string_().decode())
"""

MICROVMI = ("-m", "libmicrovmi_py.command")
VOLATILITY = (EXTRAS / "bin" / "vol", "-q")

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def guest(boot: Boot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    initrd = tmp_path_factory.mktemp("boot") / "initramfs.cpio"
    initramfs.build(packages.busybox(), initrd, {initramfs.SETUP: SETUP})
    with Guest(Config(mib=256, line=""), Boot(boot.kernel, initrd)) as guest:
        yield guest


@pytest.fixture(scope="module")
def dump(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw file of the guest, as QEMU writes it."""
    path = tmp_path_factory.mktemp("dump") / "raw"
    guest.monitor.execute("stop")
    guest.monitor.execute("pmemsave", val=0, size=guest.config.size, filename=str(path))
    guest.monitor.execute("cont")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Run a program of Python's, by the words behind ``python``, with a cache directory of these tests."""
    own = tmp_path_factory.mktemp("cache")

    def run_it(
        *words: object, package: str = "volatility3", text: str = "", cache: Path = own
    ) -> subprocess.CompletedProcess[str]:
        environment = {**with_extra(package), "XDG_CACHE_HOME": str(cache)}
        command = [sys.executable, *map(str, words)]
        return subprocess.run(
            command, env=environment, cwd=cache, input=text, capture_output=True, text=True, timeout=120, check=False
        )

    return run_it


def microvmi(run: Command, *words: object, **more: str) -> str:
    """What the command prints."""
    done = run(*MICROVMI, *words, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lasting(processes: dict[int, str]) -> dict[int, str]:
    """Those that do not come and go."""
    return {pid: name for pid, name in processes.items() if not name.startswith(PASSING)}


def told_by(guest: Guest) -> dict[int, str]:
    """The guest's own ps."""
    lines = guest.console.split("PROCESSES")[1].split(initramfs.READY)[0].splitlines()
    rows = [line.split(None, 1) for line in lines if line.strip() and "COMMAND" not in line]
    return {int(pid): name.strip() for pid, name in rows}


def test_volatility_lists_the_processes_that_the_guest_does(guest: Guest, run: Command) -> None:
    found = json.loads(microvmi(run, "vol", guest.uri, "-r", "json", "linux.pslist.PsList"))
    processes = {row["PID"]: row["COMM"] for row in found}
    assert lasting(processes) == lasting(told_by(guest))
    assert len(lasting(processes)) > 20


@pytest.fixture(scope="module")
def installed(dump: Path, run: Command) -> Path:
    """The symbol file where volatility looks by itself."""
    return Path(microvmi(run, "vol", dump).strip())


def test_the_symbol_file_is_put_where_volatility_looks(installed: Path) -> None:
    assert installed.parts[-4:-1] == ("volatility3", "symbols", "linux")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("plugin", ["linux.lsof.Lsof", "linux.malware.check_syscall.Check_syscall"])
def test_plugins_give_what_volatility_gives_on_a_file_with_no_option(dump: Path, run: Command, plugin: str) -> None:
    ours = microvmi(run, "vol", dump, plugin)
    theirs = run(*VOLATILITY, "-f", dump, plugin)
    assert (theirs.returncode, theirs.stdout) == (0, ours)
    assert len(ours.splitlines()) > 10


def test_volatility_opens_a_machine_by_itself(guest: Guest, run: Command) -> None:
    folder = microvmi(run, "volatility-path").strip()
    words = ("-p", folder, "--single-location", f"vmi:///?vm_name={guest.name}", "-r", "csv")
    done = run(*VOLATILITY, *words, "linux.pslist.PsList", "--pid", "1")
    assert done.returncode == 0, done.stderr
    assert ",1,1,0,init," in done.stdout


def test_volatility_says_why_a_machine_cannot_be_opened(run: Command) -> None:
    folder = microvmi(run, "volatility-path").strip()
    done = run(*VOLATILITY, "-p", folder, "--single-location", "vmi://qemu/?vm_name=nobody", "banners.Banners")
    assert done.returncode != 0
    assert "nobody" in done.stderr


def test_a_plugin_that_there_is_not_is_wrong_usage(guest: Guest, run: Command) -> None:
    assert run(*MICROVMI, "vol", guest.uri, "linux.nosuch.Plugin").returncode == 2


def test_a_cache_that_others_may_write_is_not_used(guest: Guest, run: Command, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    done = run(*MICROVMI, "vol", guest.uri, cache=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"microvmi: others may write {tmp_path}: chmod go-w {tmp_path}, or set XDG_CACHE_HOME\n"


def test_drgn_lists_the_processes_that_the_guest_does(guest: Guest, run: Command, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(TASKS)
    rows = [line.split(" ", 1) for line in microvmi(run, "drgn", guest.uri, script, package="drgn").splitlines()]
    assert lasting({int(pid): name for pid, name in rows}) == lasting(told_by(guest))


def test_drgn_knows_types_constants_functions_and_variables(dump: Path, run: Command) -> None:
    script = """
print(prog["init_uts_ns"].name.sysname.string_().decode(), prog["PIDTYPE_PID"].value_())
print(prog.symbol(prog["schedule"].address_).name, prog["init_task"].comm.string_().decode())
print(prog.type("struct list_head").size, len(list(for_each_online_cpu())))
mounts = [mount.mnt.mnt_sb.s_type.name.string_().decode() for mount in for_each_mount()]
print([name for name in mounts if name != "nullfs"][:2], get_dmesg()[15:28].decode())
"""
    shown = microvmi(run, "drgn", dump, package="drgn", text=script).splitlines()
    assert shown == ["Linux 0", "schedule swapper/0", "16 2", "['rootfs', 'proc'] Linux version"]


def test_a_script_of_drgn_that_fails_is_shown_where(dump: Path, run: Command) -> None:
    done = run(*MICROVMI, "drgn", dump, package="drgn", text="print(1)\nprog['nosuch']\n")
    assert (done.returncode, done.stdout) == (1, "1\n")
    assert "line 2" in done.stderr
    assert "could not find 'nosuch'" in done.stderr


def test_a_file_without_debug_information_of_the_kernel_is_an_error(dump: Path, run: Command) -> None:
    done = run(*MICROVMI, "drgn", "-s", "/bin/ls", dump, package="drgn", text="print(1)\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("microvmi: /bin/ls: no debug information of the kernel ")


def test_an_option_behind_the_machine_is_wrong_usage(dump: Path, run: Command) -> None:
    done = run(*MICROVMI, "drgn", dump, "-s", "/bin/ls", package="drgn")
    assert (done.returncode, done.stdout) == (2, "")
    assert "options stand before it" in done.stderr


@pytest.mark.alone
def test_drgn_lists_tasks_at_once(guest: Guest, run: Command, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(TASKS)

    def seconds(*words: object) -> float:
        begun = time.perf_counter()
        done = run(*words, package="drgn")
        assert done.returncode == 0, done.stderr
        return time.perf_counter() - begun

    whole = min(seconds(*MICROVMI, "drgn", guest.uri, script) for _ in range(3))
    importing = min(seconds("-m", "drgn", "--version") for _ in range(3))
    print(f"all tasks {whole:.2f} s after the start, {whole / importing:.1f} times drgn --version")
    assert whole < max(1, 30 * importing)
