# SPDX-License-Identifier: Apache-2.0
"""What a QEMU command line says: the machine's name, and where QMP is served."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from libmicrovmi_py.transport.shape import decimal

_ON = ("on", "yes", "true", "y")
HIGHEST_PORT = 0xFFFF
_HIGHEST_FD = (1 << 31) - 1
_COMMA = re.compile(r"(?:[^,]|,,)+")


@dataclass(frozen=True, slots=True)
class QmpSocket:
    """A listening socket of a QMP monitor as the command line names it: one of ``path``, ``fd``, ``host`` and ``port``.

    ``path`` may be relative; ``abstract`` says that it is no path. ``ident`` is the character device's name, if any.
    """

    path: str = ""
    abstract: bool = False
    fd: int = -1
    host: str = ""
    port: int = 0
    ident: str = ""


def guest_name(argv: Sequence[str]) -> str:
    """The name that ``-name`` gives the machine, ``""`` without one; the last ``-name`` counts."""
    name = ""
    for value in _values(argv, "name"):
        name = _options(value, "guest").get("guest", name)
    return name


def qmp_sockets(argv: Sequence[str]) -> list[QmpSocket]:
    """The sockets on which the monitors in control mode listen, in the order of the command line."""
    devices = {options.get("id", ""): options for options in _chardevs(argv)}
    found = [_shorthand(value, devices) for option in ("qmp", "qmp-pretty") for value in _values(argv, option)]
    for value in _values(argv, "mon"):
        options = _options(value, "chardev")
        if options.get("mode") == "control":
            found.append(_socket(devices.get(options.get("chardev", ""), {})))
    return [item for item in found if item is not None]


def _values(argv: Sequence[str], option: str) -> Iterator[str]:
    for word, value in itertools.pairwise(argv):
        if word in (f"-{option}", f"--{option}"):
            yield value


def _options(text: str, first: str) -> dict[str, str]:
    """``a,b=c,d=on`` as a dictionary: ``first`` is the name of a leading value, ``,,`` a comma, a bare word is on."""
    options: dict[str, str] = {}
    for index, item in enumerate(_COMMA.findall(text)):
        key, equals, value = item.replace(",,", ",").partition("=")
        if equals:
            options[key] = value
        elif index == 0:
            options[first] = key
        elif key.startswith("no") and key != "nodelay":
            options[key[2:]] = "off"
        else:
            options[key] = "on"
    return options


def _chardevs(argv: Sequence[str]) -> Iterator[dict[str, str]]:
    for value in _values(argv, "chardev"):
        options = _options(value, "backend")
        if options.get("backend") == "socket":
            yield options


def _shorthand(value: str, devices: dict[str, dict[str, str]]) -> QmpSocket | None:
    """``unix:PATH,...``, ``tcp:HOST:PORT,...`` or ``chardev:ID``, as ``-qmp`` takes it."""
    kind, _, rest = value.partition(":")
    if kind == "chardev":
        return _socket(devices.get(rest, {}))
    if kind == "unix":
        return _socket(_options(rest, "path"))
    if kind != "tcp":
        return None
    options = _options(rest, "address")
    host, _, port = options.get("address", "").rpartition(":")
    return _socket({**options, "host": host, "port": port})


def _socket(options: dict[str, str]) -> QmpSocket | None:
    if options.get("server") not in _ON:
        return None
    ident = options.get("id", "")
    if "path" in options:
        return QmpSocket(path=options["path"], abstract=options.get("abstract") in _ON, ident=ident)
    fd = decimal(options.get("fd", ""), _HIGHEST_FD)
    if fd is not None:
        return QmpSocket(fd=fd, ident=ident)
    port = decimal(options.get("port", ""), HIGHEST_PORT)
    return QmpSocket(host=_reachable(options.get("host", "").strip("[]")), port=port, ident=ident) if port else None


def _reachable(host: str) -> str:
    """Where to connect to a server that listens on ``host``."""
    return {"": "localhost", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
