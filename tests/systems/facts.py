# SPDX-License-Identifier: Apache-2.0
"""What a system is made of: its versions, as its own programs tell them."""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from pathlib import Path

from .report import Row
from .settings import System

VERSION = re.compile(r"\d+(?:\.\d+)+")
QUESTIONS = (
    ". /etc/os-release && echo $PRETTY_NAME",
    "uname -m",
    "getconf GNU_LIBC_VERSION",
    "{compiler} --version | head -n 1",
    "qemu-system-x86_64 --version 2> /dev/null | head -n 1",
    "grep ^__version__ {source}/libmicrovmi_py/version.py",
)


def questions(compiler: str, source: str) -> str:
    """A shell command that prints a line for each, also where there is no answer; ``source`` is the clone."""
    words = {"compiler": shlex.quote(compiler), "source": shlex.quote(source)}
    asked = (question.format(**words) for question in QUESTIONS)
    return "; ".join(f'echo "$({question})"' for question in asked)


def fill(row: Row, told: str, compiler: str) -> None:
    """Write what the system told to ``questions`` into its row."""
    release, processor, glibc, compiled, qemu, library = told.splitlines()[: len(QUESTIONS)]
    row.release, row.processor = release or "-", processor or "-"
    row.glibc, row.qemu = version(glibc), version(qemu)
    row.compiler = f"{compiler} {version(compiled)}"
    row.date = time.strftime("%Y-%m-%d", time.gmtime())
    row.source = version(library)


def emulator(system: System) -> str:
    """What runs the system's programs here, with its version; empty if this processor does."""
    if not system.emulated:
        return ""
    # By the name that Debian registers, which is a link, it takes no options.
    program = Path(system.emulator.read_text().partition("interpreter ")[2].split()[0]).resolve()
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return f"qemu-user {version(told)}"


def version(line: str) -> str:
    """The first version in a line; a dash if there is none."""
    found = VERSION.search(line)
    return found[0] if found else "-"
