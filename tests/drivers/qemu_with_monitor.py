# SPDX-License-Identifier: Apache-2.0
"""Starting the program that looks like QEMU, and talking to it as another client of its monitor does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qemu_simulators import QemuSimulators


class QemuWithMonitor:
    """A running one; ``uri`` opens it."""

    def __init__(self, process: subprocess.Popen[str], name: str, path: Path) -> None:
        self.process = process
        self.name = name
        self.path = path

    @property
    def uri(self) -> str:
        return f"vmi://qemu/?vm_name={self.name}&timeout=5"

    def execute(self, command: str, **arguments: object) -> Any:
        """Run a command over a connection of its own."""
        return self._execute(command, arguments, ())

    def hand_over(self, path: str, name: str) -> None:
        """Leave it a descriptor of a file by that name."""
        fd = os.open(path, os.O_RDONLY)
        self._execute("getfd", {"fdname": name}, (fd,))
        os.close(fd)

    def _execute(self, command: str, arguments: dict[str, object], descriptors: Sequence[int]) -> Any:
        with socket.socket(socket.AF_UNIX) as client, client.makefile("rb") as lines:
            client.settimeout(20)
            client.connect(str(self.path))
            request = json.dumps({"execute": command, "arguments": arguments, "id": 1}).encode() + b"\n"
            socket.send_fds(client, [request], descriptors)
            for line in lines:
                message = json.loads(line)
                if "return" in message:
                    return message["return"]
        raise AssertionError(f"no answer to {command}")

    def status(self) -> str:
        """The run state."""
        return str(self.execute("query-status")["status"])


@contextmanager
def qemu_with_monitor(folder: Path, *options: str) -> Iterator[QemuWithMonitor]:
    """A machine of a name of its own, with a monitor in ``folder``."""
    with QemuSimulators(folder) as machines:
        yield QemuWithMonitor(*machines.launch(*options))
