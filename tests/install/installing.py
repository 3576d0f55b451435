# SPDX-License-Identifier: Apache-2.0
"""What tests of ``make install`` share: make itself, and a C program to be built against what it laid down."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = r"""
#include <libmicrovmi.h>
#include <stdio.h>
int main(int argc, char **argv)
{
    const char *error;
    uint8_t bytes[8];
    void *vm = microvmi_open(argc > 1 ? argv[1] : "", &error);
    if (vm == NULL) {
        fprintf(stderr, "%s\n", error);
        rs_cstring_free((char *)error);
        return 1;
    }
    if (!microvmi_read_physical(vm, 0x3000, bytes, sizeof bytes, NULL))
        return 2;
    printf("%s %d\n", microvmi_get_driver_name(vm), bytes[0]);
    microvmi_destroy(vm);
    return 0;
}
"""


def ran(*command: object, cwd: Path | str = "/", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def run(*command: object, cwd: Path | str = "/", env: dict[str, str] | None = None) -> str:
    """What a program that succeeds prints."""
    done = ran(*command, cwd=cwd, env=env)
    assert done.returncode == 0, f"{done.args}: {done.stdout}{done.stderr}"
    return done.stdout


def made(*words: str, umask: int = 0o022) -> subprocess.CompletedProcess[str]:
    """``make`` in this tree, with this Python."""
    # A make that runs this test must not hand its own jobs and variables on.
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "-s", f"PY={sys.executable}", *words]
    return subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, check=False, umask=umask)


def make(*words: str) -> None:
    done = made(*words)
    assert done.returncode == 0, done.stdout + done.stderr
