# SPDX-License-Identifier: Apache-2.0
"""The first bytes of a monitor: QMP, QMP in telnet, or the human monitor, told apart before anything is sent."""

from __future__ import annotations

import socket

from libmicrovmi_py.errors import TimeoutExpiredError
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.messages import QmpProtocolError
from libmicrovmi_py.transport.qmp import QmpHangupError

_TELNET = 0xFF
_TELNET_OPTION = 3
_HUMAN = b"QEMU "
_PEEKED = 64


def wait_for_greeting(sock: socket.socket, deadline: Deadline) -> None:
    """Wait until QMP's greeting arrives, and leave it in the socket; a telnet server's options are skipped.

    Raises ``QmpProtocolError`` for the human monitor and anything else that speaks first, ``QmpHangupError``,
    ``TimeoutExpiredError``.
    """
    while (first := _peeked(sock, deadline))[0] == _TELNET:
        _skip_option(sock, deadline)
    check_first(first)


def check_first(first: bytes) -> None:
    """Whether a server that speaks first with these bytes may be QMP's. Raises ``QmpProtocolError``."""
    text = first.lstrip()
    if text and not text.startswith(b"{"):
        if _HUMAN.startswith(text[: len(_HUMAN)]):
            raise QmpProtocolError("it serves only the human monitor, not QMP (-qmp, or mode=control)")
        raise QmpProtocolError(f"not a QMP server: it sent {text!r}")


def without_options(received: bytearray) -> bytes:
    """Take what has come behind a telnet server's options; nothing as long as one of those is not whole."""
    while len(received) >= _TELNET_OPTION and received[0] == _TELNET:
        del received[:_TELNET_OPTION]
    if received and received[0] == _TELNET:
        return b""
    data = bytes(received)
    received.clear()
    return data


def _peeked(sock: socket.socket, deadline: Deadline, size: int = _PEEKED) -> bytes:
    return _received(sock, deadline, size, socket.MSG_PEEK)


def _skip_option(sock: socket.socket, deadline: Deadline) -> None:
    """Take one option: three bytes, which may come one by one."""
    left = _TELNET_OPTION
    while left:
        left -= len(_received(sock, deadline, left, 0))


def _received(sock: socket.socket, deadline: Deadline, size: int, flags: int) -> bytes:
    if deadline.expired:
        raise TimeoutExpiredError(f"no answer from QEMU within {deadline.seconds:g} s")
    try:
        sock.settimeout(deadline.remaining or 0.001)
        data = sock.recv(size, flags)
    except TimeoutError as err:
        raise TimeoutExpiredError(f"no answer from QEMU within {deadline.seconds:g} s") from err
    except OSError as err:
        raise QmpHangupError(f"the connection broke: {err.strerror or err}") from err
    if not data:
        raise QmpHangupError("QEMU closed the connection")
    return data
