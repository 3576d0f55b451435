# SPDX-License-Identifier: Apache-2.0
"""What pages show, done on a live guest: commands in a shell, C and Python with what stands around them in mind."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from command.running import environment
from documentation.blocks import Command

NAMED = re.compile(r"(?<![\w./-])(debian|web-1|web-7|web-\*)(?![\w.-])")
"""The machines of the pages; all of them are the one guest that there is."""
OWN = re.compile(r"(?<![\w./-])first(?![\w.-])")
"""The machine that a page itself starts."""
LASTING = re.compile(r"microvmi (events(?! .*--count)|mount [^&]*$|pause|nbd(?! .*--run))")
"""Commands that go on until they are interrupted."""
SECONDS = 120
SIGNALLED = ("env", "--default-signal=INT,TERM,HUP")
"""In front of a command: what the tests themselves were started to ignore, as in the background, is not ignored."""
WORD = re.compile(r"(?<![\w<+/.])[A-Za-z]{3,}(?![\w/.])")

C_AROUND = """
#include <inttypes.h>
#include <libmicrovmi.h>
#include <stdio.h>
#include <stdlib.h>

static bool shown(void *vm, void *older, void *newer) {{
    static unsigned char buffer[4096];
    const char *error = NULL;
    struct microvmi_address_space space = MICROVMI_ADDRESS_SPACE_INIT;
    microvmi_get_address_space(vm, 0, &space);
    {{
{block}
    }}
    if (microvmi_last_error_code() != MICROVMI_OK) {{ puts(microvmi_last_error()); exit(1); }}
    (void)buffer; (void)error; (void)older; (void)newer;
    return true;
}}

int main(int count, char **words) {{
    const char *error;
    void *vm = microvmi_open(words[1], &error);
    if (vm == NULL) {{ puts(error); return 1; }}
    void *older = {older};
    if (!shown(vm, older, vm)) {{ puts(microvmi_last_error()); return 1; }}
    microvmi_destroy(vm);
    return 0;
}}
"""
PYTHON_AROUND = """
from libmicrovmi_py import *
vm = Microvmi.open({uri!r})
"""
PRIVILEGED = """
import ctypes
from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers import registry
from libmicrovmi_py.transport.native import native
native(), list(registry.all_drivers())
libc = ctypes.CDLL(None)
libc.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
become_nobody()
kept = (ctypes.c_uint32 * 6)({capabilities}, {capabilities})  # effective, permitted
assert libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), kept) == 0
try:
    with Microvmi.open({uri!r}) as vm:
        print("bytes", vm.read_physical(0, 16).hex())
except Exception as err:
    print(type(err).__name__, err)
"""
"""A program with no rights of root's but these capabilities."""


@dataclass(frozen=True)
class Places:
    """What a shell has: the guest's name, the example programs, the library's folder and its header's, a kernel."""

    guest: str
    examples: Path
    library: Path
    include: Path
    kernel: Path


class Shell:
    """A folder, and what is run there; what still runs at its end is ended."""

    def __init__(self, folder: Path, places: Places) -> None:
        self.folder, self.places = folder, places
        self.own = f"first-{os.getpid()}"
        self._running = ExitStack()
        commands = folder / "bin"
        commands.mkdir()
        ours = environment()["PYTHONPATH"]
        for name, path, words in (
            ("microvmi", ours, "-m libmicrovmi_py.command"),
            ("drgn", ours, "-m drgn.cli"),
            ("python3", "", ""),  # finds nothing of ours by itself
        ):
            found = f"export PYTHONPATH={shlex.quote(path)}\n" if path else ""
            (commands / name).write_text(f'#!/bin/sh\n{found}exec {shlex.quote(sys.executable)} {words} "$@"\n')
            (commands / name).chmod(0o755)
        (folder / "vm").mkdir()
        library = str(places.library)
        as_installed = {"C_INCLUDE_PATH": str(places.include), "LIBRARY_PATH": library, "LD_LIBRARY_PATH": library}
        path = f"{commands}:{places.examples}:{os.environ['PATH']}"
        self.environment = environment(PATH=path, HOME=str(folder), **as_installed)
        del self.environment["PYTHONPATH"]

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *error: object) -> None:
        self._running.close()

    def run(self, command: Command) -> str:
        """Run it as the page has it, but on the guest and in the folder; what it printed, both streams."""
        text = self.here(command.text)
        if text.startswith("ssh "):
            text = f"ssh -G {text.removeprefix('ssh ').removesuffix('&')}"  # which reads its options, and goes nowhere
        if text.endswith("&"):
            return self._background(text.removesuffix("&"), command)
        if LASTING.match(text):
            return self._interrupted(text)
        end = time.monotonic() + SECONDS
        while True:
            code, told = self._run(text, command.typed)
            if code in accepted(text) or self.own not in text or time.monotonic() > end:
                break
            time.sleep(1)  # the page's own guest has yet to start
        assert code in accepted(text), f"{text}: {code}\n{told}"
        return told

    def _run(self, text: str, typed: tuple[str, ...]) -> tuple[int, str]:
        done = subprocess.run(
            ["sh", "-c", text], cwd=self.folder, env=self.environment, timeout=SECONDS, check=False,
            input="".join(f"{line}\n" for line in typed).encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return done.returncode, done.stdout.decode(errors="replace")

    def here(self, text: str) -> str:
        """A text of a page with the guest for its machines, and the folder for its folders."""
        ours = {"/usr/local/lib": self.places.library, "/vmlinuz": self.places.kernel}
        instead = {**ours, "/tmp": self.folder, "/home/me": self.folder, "/run": self.folder}
        text = re.sub(rf"(?<![\w.])({'|'.join(instead)})(?=[/ ]|$)", lambda found: str(instead[found[1]]), text)
        text = OWN.sub(self.own, NAMED.sub(self.places.guest, text))
        if "--only" not in text and "--machine" not in text:  # other machines of this computer are not to be touched
            text = text.replace("microvmi scan ", f"microvmi scan --only {self.places.guest} ")
        return text

    def _background(self, text: str, command: Command) -> str:
        """Start it, and wait for the last line that the page shows of it."""
        told, process = self._start(text)
        last = WORD.findall(command.shown[-1])[:1] if command.shown else []
        self._until(process, told, last[0] if last else "", text)
        return told.read_text(errors="replace")

    def _interrupted(self, text: str) -> str:
        """Run it until it has printed something, then interrupt it."""
        told, process = self._start(text)
        self._until(process, told, "\n", text)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(SECONDS)
        return told.read_text(errors="replace")

    def _start(self, text: str) -> tuple[Path, subprocess.Popen[bytes]]:
        told = self.folder / "told"
        with told.open("wb") as output:
            process = subprocess.Popen(
                [*SIGNALLED, "sh", "-c", f"exec {text}"], cwd=self.folder, env=self.environment, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self._running.callback(_end, process)
        return told, process

    def _until(self, process: subprocess.Popen[bytes], told: Path, word: str, text: str) -> None:
        end = time.monotonic() + SECONDS
        while word not in told.read_text(errors="replace"):
            assert process.poll() is None, f"{text}: {process.returncode}\n{told.read_text(errors='replace')}"
            assert time.monotonic() < end, f"{text}: no {word!r}\n{told.read_text(errors='replace')}"
            time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    process.wait(SECONDS)


def accepted(text: str) -> tuple[int, ...]:
    """The exit codes of a command that did what it should: ``diff`` ends with 1 where it found something."""
    return (0, 1) if text.startswith(("diff ", "microvmi diff ")) else (0,)


def as_shown(command: Command, told: str) -> None:
    """Half of the words at least of the first line that the page shows are in the output; numbers are other ones."""
    line = command.shown[0].partition("|")[0] if command.shown else ""
    words = NAMED.sub("", OWN.sub("", line))
    missing = [word for word in WORD.findall(words) if word not in told]
    assert len(missing) * 2 <= len(WORD.findall(words)), f"{command.name}: no {missing} in\n{told}"
    assert told.strip() or not line, f"{command.name} printed nothing"
