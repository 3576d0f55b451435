# SPDX-License-Identifier: Apache-2.0
"""Runs in dom0: the checks one by one, each with its domain, and their results onto the second serial port.

A line is ``begin NAME``, ``pass NAME SECONDS``, ``fail NAME SECONDS REASON``, ``| text`` for what a check printed, or
``end``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TextIO

LAB = Path("/lab")
CONSOLES = Path("/var/log/xen/console")
CHECK_SECONDS = 150
DOMAIN_SECONDS = 60
LINUX_IS_UP = "xenlab: the Linux guest is up"
KEPT_LINES = 60


def xl(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the toolstack's program."""
    return subprocess.run(["xl", *arguments], capture_output=True, text=True, timeout=DOMAIN_SECONDS, check=False)


def create(domain: str) -> None:
    """Create a domain of /lab/DOMAIN.cfg."""
    done = xl("create", "-q", f"{LAB}/{domain}.cfg")
    if done.returncode:
        raise RuntimeError(f"no domain {domain}: {done.stdout}{done.stderr}")


def prepare(domain: str) -> None:
    """A new tiny domain and no other; the Linux domain stays for all its checks, as its start takes long."""
    xl("destroy", "tiny")
    if domain == "tiny":
        create("tiny")
    elif xl("domid", "linux").returncode:
        create("linux")
        wait_for_linux()


def wait_for_linux() -> None:
    """Until the Linux guest's user space is up."""
    console = CONSOLES / "guest-linux.log"
    deadline = time.monotonic() + DOMAIN_SECONDS
    while not (console.exists() and LINUX_IS_UP in console.read_text(errors="replace")):
        if time.monotonic() > deadline:
            raise RuntimeError(f"the Linux guest is not up after {DOMAIN_SECONDS} s: see dom0.log")
        time.sleep(0.1)


def command(name: str) -> list[str]:
    """What starts a check."""
    program = LAB / "checks" / name
    script = program.with_suffix(".py")
    return [sys.executable, "-s", "-S", str(script)] if script.exists() else [str(program)]


def run(name: str) -> tuple[str, str]:
    """Run a check; what it printed, and why it failed or ``""``. Nothing it started outlives it."""
    with subprocess.Popen(
        command(name),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            text, _ = process.communicate(timeout=CHECK_SECONDS)
            code = process.returncode
            reason = "" if code == 0 else f"exit code {code}" if code > 0 else signal.Signals(-code).name
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            text, _ = process.communicate()
            reason = f"no end after {CHECK_SECONDS} s"
    return text, reason


def report(out: TextIO, name: str) -> None:
    """Prepare and run a check, and tell how it went."""
    print("begin", name, file=out, flush=True)
    print(f"lab: {name}", flush=True)
    start = time.monotonic()
    text = ""
    try:
        prepare(name.split("/")[0])
        start = time.monotonic()
        text, reason = run(name)
    except (OSError, RuntimeError, subprocess.TimeoutExpired) as err:
        reason = " ".join(str(err).split())
    for line in text.splitlines()[-KEPT_LINES:]:
        print("|", line, file=out)
    verdict = "fail" if reason else "pass"
    print(f"{verdict} {name} {time.monotonic() - start:.2f} {reason}".rstrip(), file=out, flush=True)


def main() -> None:
    """Every check that /lab/order names; then the consoles of the domains, for whoever looks for a reason."""
    with open("/dev/ttyS1", "w") as out:
        for name in (LAB / "order").read_text().split():
            report(out, name)
        print("end", file=out, flush=True)
    for console in sorted(CONSOLES.glob("guest-*.log")):
        for line in console.read_text(errors="replace").splitlines()[-KEPT_LINES:]:
            print(f"{console.stem}: {line}", flush=True)


if __name__ == "__main__":
    main()
