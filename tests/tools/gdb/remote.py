# SPDX-License-Identifier: Apache-2.0
"""A client of gdb's remote protocol, and a server for it that runs on a thread; written from the protocol's manual."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from libmicrovmi_py import Microvmi, VmGoneError
from libmicrovmi_py.tools.gdb.serve import listening, serve

SECONDS = 20.0


def checksum(content: bytes) -> bytes:
    return b"%02x" % (sum(content) % 256)


def framed(content: bytes) -> bytes:
    return b"$" + content + b"#" + checksum(content)


class Client:
    """A connection. ``acknowledges``: as a debugger does before it has agreed on something else."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(SECONDS)
        self._socket.connect(path)
        self._file = self._socket.makefile("rb")
        self.acknowledges = True

    def raw(self, data: bytes) -> None:
        self._socket.sendall(data)

    def byte(self) -> bytes:
        """One byte; none at the end."""
        with suppress(ConnectionResetError):
            return self._file.read(1) or b""
        return b""

    def content(self) -> bytes:
        """The next packet's content. Raises ``EOFError``."""
        while (found := self.byte()) != b"$":
            if not found:
                raise EOFError
        content = bytearray()
        while (found := self.byte()) != b"#":
            if not found:
                raise EOFError
            content += found
        assert self.byte() + self.byte() == checksum(bytes(content))
        if self.acknowledges:
            with suppress(BrokenPipeError):  # the answer to a detach is the last
                self.raw(b"+")
        return bytes(content)

    def send(self, content: bytes) -> None:
        """Send a packet, and see it acknowledged."""
        self.raw(framed(content))
        if self.acknowledges:
            assert self.byte() == b"+"

    def ask(self, content: bytes) -> bytes:
        self.send(content)
        return self.content()

    def said(self, command: str) -> str:
        """What ``monitor COMMAND`` prints."""
        text, answer = "", self.ask(b"qRcmd," + command.encode().hex().encode())
        while answer != b"OK":
            assert answer[:1] == b"O"
            text, answer = text + bytes.fromhex(answer[1:].decode()).decode(), self.content()
        return text

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def served(machine: Microvmi, folder: Path) -> Iterator[str]:
    """Serve a machine to clients that connect to a path, until the end of the block."""
    path = str(folder / "gdb")
    end, ending = os.pipe()

    def work() -> None:
        with suppress(VmGoneError):
            serve(machine, listener, end)

    try:
        with listening(path) as listener:
            thread = threading.Thread(target=work)
            thread.start()
            try:
                yield path
            finally:
                os.close(ending)
                thread.join(SECONDS)
                assert not thread.is_alive()
    finally:
        os.close(end)
