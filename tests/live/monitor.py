# SPDX-License-Identifier: Apache-2.0
"""QEMU's own word: a QMP client of the tests' own, which knows nothing of the library under test."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

TIMEOUT = 120.0


class MonitorError(Exception):
    """QEMU's answer was an error, or it hung up."""


class Monitor:
    """The control socket of one QEMU; connected only while a command runs, as QEMU serves one client at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def held(self) -> Iterator[_Connection]:
        """A connection that stays open for the time of the ``with`` block."""
        with closing(_Connection(self.path)) as connection:
            yield connection

    def execute(self, command: str, **arguments: object) -> Any:
        """Run one command and return what QEMU returned."""
        with self.held() as connection:
            return connection.execute(command, **arguments)

    def human(self, line: str) -> str:
        """Run one line of the human monitor and return its text."""
        text: str = self.execute("human-monitor-command", **{"command-line": line})
        return text.replace("\r\n", "\n")

    def status(self) -> str:
        """The run state: ``running``, ``paused``, ..."""
        status: str = self.execute("query-status")["status"]
        return status


class _Connection:
    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(TIMEOUT)
        try:
            self._socket.connect(str(path))
            self._lines = self._socket.makefile("rb")
        except OSError:
            self._socket.close()
            raise
        try:
            self._next("QMP")
            self.execute("qmp_capabilities")
        except (OSError, MonitorError):
            self.close()
            raise

    def execute(self, command: str, **arguments: object) -> Any:
        self.send(command, **arguments)
        return self.reply()

    def send(self, command: str, **arguments: object) -> None:
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")

    def reply(self) -> Any:
        return self._next("return")

    def told_at(self, event: str) -> int:
        """When QEMU told the next event of this name, in microseconds; what comes before it is passed over."""
        for line in self._lines:
            message = json.loads(line)
            if message.get("event") == event:
                at = message["timestamp"]
                return int(at["seconds"]) * 1_000_000 + int(at["microseconds"])
        raise MonitorError("QEMU hung up")

    def _next(self, key: str) -> Any:
        """The value of ``key`` in the first message that has it; events before it are passed over."""
        for line in self._lines:
            message = json.loads(line)
            if "error" in message:
                raise MonitorError(message["error"]["desc"])
            if key in message:
                return message[key]
        raise MonitorError("QEMU hung up")

    def close(self) -> None:
        self._lines.close()
        self._socket.close()
