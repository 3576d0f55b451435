# SPDX-License-Identifier: Apache-2.0
"""The messages of the QEMU Machine Protocol: JSON objects, as they arrive, from somebody who may send anything."""

from __future__ import annotations

import contextlib
import json

from libmicrovmi_py.declare import Any
from libmicrovmi_py.errors import DriverUnavailableError
from libmicrovmi_py.transport.shape import shown

LARGEST_MESSAGE = 4 << 20
"""Bytes; a longer message is taken for garbage. The largest answer is that of ``info mtree -f``, some 100 KiB. Python's
objects take up to thirty times as many bytes as their text."""

DEEPEST_MESSAGE = 64
"""Objects and lists within each other. Python's parser takes stack for each, which a host's thread may not have."""

_decoded = json.JSONDecoder().decode
_NO_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
_ALIKE = bytes.maketrans(b"[]", b"{}")


class QmpProtocolError(DriverUnavailableError):
    """The other end does not speak QMP."""


class Messages:
    """The JSON objects in what arrives, each as soon as it is whole.

    One is a line, or, from a QMP monitor with ``pretty=on``, several indented ones.
    """

    def __init__(self) -> None:
        self._received = bytearray()
        self._searched = 0
        self._lines = bytearray()

    def add(self, data: bytes) -> None:
        """What has arrived."""
        self._received += data

    def next(self) -> dict[str, Any] | None:
        """The next one, ``None`` if it is not whole yet. Raises ``QmpProtocolError``."""
        while (line := self._line()) is not None:
            lines = self._lines
            if not lines and not line.strip():
                continue
            if (not lines and not line.startswith(b"{")) or (lines and line.startswith(b"{")):
                raise QmpProtocolError(f"not a QMP server: it sent {bytes(line[:60])!r}")
            complete = line.startswith(b"}") or (not lines and line.rstrip().endswith(b"}"))
            lines += line
            if complete:
                self._lines = bytearray()
                return parsed(bytes(lines))
        return None

    def _line(self) -> bytes | None:
        end = self._received.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._received)
            if len(self._lines) + self._searched > LARGEST_MESSAGE:
                raise QmpProtocolError(f"not a QMP server: a message of more than {LARGEST_MESSAGE >> 20} MiB")
            return None
        line = bytes(self._received[: end + 1])
        del self._received[: end + 1]
        self._searched = 0
        return line


def check_before_greeting(message: dict[str, Any]) -> None:
    """Whether a monitor may say this before it greets: an event, or an answer to the client before, who hung up.

    Raises ``QmpProtocolError`` if not.
    """
    if not message.keys() & {"event", "return", "error"}:
        raise QmpProtocolError(f"not a QMP server: it greets with {shown(message)}")


def parsed(line: bytes) -> dict[str, Any]:
    """A message, which is an object. Raises ``QmpProtocolError``."""
    message = None
    if len(line) <= LARGEST_MESSAGE and not _too_deep(line):
        with contextlib.suppress(ValueError, RecursionError):
            message = _decoded(line.decode("utf-8", "surrogatepass"))
    if not isinstance(message, dict):
        raise QmpProtocolError(f"not a QMP server: it sent {line[:60]!r}")
    return message


def _too_deep(line: bytes) -> bool:
    """Whether objects and lists are nested deeper than ``DEEPEST_MESSAGE``, or one of so many has no end."""
    if line.count(b"{") + line.count(b"[") <= DEEPEST_MESSAGE:
        return False
    outside = b"".join(line.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    brackets = outside.translate(_ALIKE, _NO_BRACKETS)
    for _ in range(DEEPEST_MESSAGE):
        if not brackets:
            return False
        brackets = brackets.replace(b"{}", b"")
    return bool(brackets)
