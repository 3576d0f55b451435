# SPDX-License-Identifier: Apache-2.0
"""QEMU's stub for debuggers, opened for one operation on a machine that stands, through a descriptor of ours."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.errors import DriverUnavailableError, IoError, MicrovmiError
from libmicrovmi_py.transport.fds import StandardStreamsHeld
from libmicrovmi_py.transport.qmp import QmpClient
from libmicrovmi_py.transport.rsp import RspClient
from libmicrovmi_py.transport.shape import decimal, text

_NAME = "microvmi-stub"
"""Of the character device, and of the descriptor that it is made of."""

_PARTS = 2
"""What is said to the stub may take one of so many equal parts of the time, so that it can be ended within the rest."""

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_INCLUDE = re.compile(r'<xi:include href="([\w.-]+)"')
_REGISTER = re.compile(r"<reg\s([^<>]*)>")
_ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')
_MOST_BITS = 4096
_HIGHEST_NUMBER = 0xFFFF


class StubRegister(NamedTuple):
    """The number of a register, its size in bytes."""

    number: int
    size: int


@contextmanager
def opened(client: QmpClient, others: Collection[str]) -> Iterator[RspClient]:
    """The stub for the length of a ``with`` block. It must not be told to run the machine, nor to stop it anywhere.

    ``others`` are names that the character devices of other stubs may have. Raises ``DriverUnavailableError`` if
    somebody else has the stub. If the connection breaks, a character device stays with QEMU that stops nothing; the
    next use of the stub removes it.
    """
    _make_room(client, others)
    with contextlib.ExitStack() as stack:
        with StandardStreamsHeld():
            ours, theirs = socket.socketpair()
        rsp = RspClient(ours, client.share(_PARTS))
        stack.callback(rsp.close)
        with theirs:
            client.hand_over(theirs.fileno(), "getfd", fdname=_NAME).result()
        _attach(client)
        stack.callback(_detach, client)
        rsp.ask("qSupported:multiprocess-")
        yield rsp


def check_free(client: QmpClient, others: Collection[str]) -> None:
    """Raise ``DriverUnavailableError`` if somebody else has the stub."""
    for item in client.records("query-chardev"):
        label = text(item.get("label"), "the name of a character device")
        place = text(item.get("filename", ""), "the place of a character device")
        if label in others:
            raise DriverUnavailableError(
                f"registers are written by QEMU's debugger's stub, which is somebody else's ({label}: {place}): "
                f"'gdbserver none' in the human monitor ends it"
            )
        if label == _NAME and item.get("frontend-open") and not place.startswith("disconnected:"):
            raise DriverUnavailableError("another program writes registers of this machine at this moment")


def _make_room(client: QmpClient, others: Collection[str]) -> None:
    """Remove what a program of ours left that was killed while it had the stub."""
    check_free(client, others)
    for item in client.records("query-chardev"):
        if item.get("label") == _NAME:
            _remove(client, attached=bool(item.get("frontend-open")))


def _remove(client: QmpClient, *, attached: bool) -> None:
    if attached:
        client.human("gdbserver none")
    else:
        client.execute("chardev-remove", id=_NAME)


def _attach(client: QmpClient) -> None:
    backend = {"addr": {"type": "fd", "data": {"str": _NAME}}, "server": False}
    try:
        client.execute("chardev-add", id=_NAME, backend={"type": "socket", "data": backend})
    except IoError:
        client.execute("closefd", fdname=_NAME)
        raise
    answer = client.human(f"gdbserver chardev:{_NAME}")
    if not answer.startswith("Waiting"):
        _remove(client, attached=False)
        raise IoError(f"QEMU opens no debugger's stub: {answer.strip()}")


def _detach(client: QmpClient) -> None:
    with contextlib.suppress(MicrovmiError):  # the connection broke, and that is being told
        _remove(client, attached=True)


def registers(rsp: RspClient) -> dict[str, StubRegister]:
    """The core registers, by the stub's names for them: those of the first description that ``target.xml`` includes."""
    included = _INCLUDE.findall(_COMMENT.sub("", rsp.read_file("target.xml")))
    if not included:
        raise IoError("the debugger's stub describes no registers")
    found: dict[str, StubRegister] = {}
    number = 0
    for item in _REGISTER.findall(_COMMENT.sub("", rsp.read_file(included[0]))):
        values = dict(_ATTRIBUTE.findall(item))
        bits = decimal(values.get("bitsize", ""), _MOST_BITS)
        number = decimal(values.get("regnum", str(number)), _HIGHEST_NUMBER) or 0
        if not bits or bits % 8:
            raise IoError("the debugger's stub describes a register without a size")
        found[values.get("name", "")] = StubRegister(number, bits // 8)
        number += 1
    return found
