# SPDX-License-Identifier: Apache-2.0
"""Show the processes of a Linux guest.

The kernel itself says where they are: no symbol file, nothing in the guest. Threads of the kernel are in brackets,
under the names that the guest's own ps has for them. Processes come and go while a machine that runs is read; --pause
or --snapshot show one moment.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from libmicrovmi_py.command import kit
from libmicrovmi_py.export.view import View
from libmicrovmi_py.linux.kernel import Kernel
from libmicrovmi_py.linux.tasks import Task, tasks

_HEAD = ("PID", "PPID", "UID", "S", "COMMAND")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The machine, and whether threads are shown."""
    kit.machine_argument(parser, view=True, default=View.LIVE)
    parser.add_argument("--threads", action="store_true", help="show the threads of a process below it")
    kit.json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Read them."""
    with kit.viewed(options) as machine:
        document = [_told(task) for task in tasks(Kernel.find(machine), threads=options.threads)]
    kit.show(options, document, lambda: _lines(document))
    return 0


def _told(task: Task) -> dict[str, object]:
    """What is known of a task; bytes that are no text are written as such."""
    return {
        "pid": task.pid,
        "process": task.tgid,
        "parent": task.parent,
        "user": task.user,
        "state": task.state,
        "name": _text(task.shown_name()),
        "kernel": task.is_kernel_thread,
        "arguments": [_text(item) for item in task.command_line()],
    }


def _text(content: bytes) -> str:
    return content.decode("utf-8", "backslashreplace")


def _lines(document: Sequence[dict[str, object]]) -> list[str]:
    rows = [(*(str(row[name]) for name in ("pid", "parent", "user", "state")), _command(row)) for row in document]
    return kit.table([_HEAD, *rows], right=(0, 1, 2))


def _command(row: dict[str, object]) -> str:
    """As ``ps`` has it: the arguments, or the name in brackets for what has none; in braces for a further thread."""
    name, arguments = row["name"], row["arguments"]
    if row["pid"] != row["process"]:
        return f"{{{name}}}"
    return " ".join(arguments) if isinstance(arguments, list) and arguments else f"[{name}]"
