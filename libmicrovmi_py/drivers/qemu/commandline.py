# SPDX-License-Identifier: Apache-2.0
"""What a QEMU command line says, with the files that it reads: the machine's name, and where its monitors are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from libmicrovmi_py.declare import dataclass
from libmicrovmi_py.transport.options import options as _options
from libmicrovmi_py.transport.options import values as _values
from libmicrovmi_py.transport.shape import decimal

HUMAN = "the human monitor"
"""How :func:`other_monitors` begins to tell one."""

_LOG = ("d", "D", "trace")
_ON = ("on", "yes", "true", "y")
HIGHEST_PORT = 0xFFFF
_HIGHEST_FD = (1 << 31) - 1
_FIRST = {"name": "guest", "chardev": "backend", "mon": "chardev"}
"""The name of a value that stands first and has none, by option."""

_SOCKETS = ("tcp", "telnet", "websocket", "unix")
_NO_SOCKETS = ("stdio", "pty", "vc", "null", "pipe", "file")


@dataclass(frozen=True, slots=True)
class Group:
    """An option and its values: ``-chardev socket,id=c`` or, in a file, ``[chardev "c"]`` with lines below."""

    kind: str
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class QmpSocket:
    """A listening socket of a QMP monitor as the command line names it: one of ``path``, ``fd``, ``host`` and ``port``.

    ``path`` may be relative; ``abstract`` says that it is no path. ``port`` is the first that QEMU tries, ``last`` the
    last one, 0 for that one alone; ``port`` 0 is any. ``ident`` is the character device's name, if any. ``wrapped`` is
    what QMP is wrapped in there and we do not speak.
    """

    path: str = ""
    abstract: bool = False
    fd: int = -1
    host: str = ""
    port: int = 0
    last: int = 0
    ident: str = ""
    wrapped: str = ""


def guest_name(argv: Sequence[str], files: Sequence[Group] = ()) -> str:
    """The name that ``-name`` gives the machine, ``""`` without one; the last ``-name`` counts."""
    name = ""
    for values in _all("name", argv, files):
        name = values.get("guest", name)
    return name


def qmp_sockets(argv: Sequence[str], files: Sequence[Group] = ()) -> list[QmpSocket]:
    """The sockets on which the monitors in control mode listen, in the order of the command line."""
    found = (_socket(values) for values in _monitors(argv, files, control=True))
    return [item for item in found if item is not None]


def other_monitors(argv: Sequence[str], files: Sequence[Group] = ()) -> list[str]:
    """The monitors that :func:`qmp_sockets` leaves out, in words: what they are and where."""
    found = []
    for values in _monitors(argv, files, control=True):
        if _socket(values) is None:
            calls = "connects out to" if values.get("backend") == "socket" else "is on"
            found.append(f"its QMP monitor {calls} {_place(values)}")
    for values in _monitors(argv, files, control=False):
        if values.get("backend") in ("socket", "pty", "pipe"):
            found.append(f"{HUMAN} on {_place(values)}")
    return found


def debuggers(argv: Sequence[str]) -> set[str]:
    """The names that the character devices of a debugger's stub have which this QEMU was started with."""
    named = (value.partition(":") for value in _values(argv, "gdb"))
    return {"gdb", *(name for kind, _, name in named if kind == "chardev")}


def log_options(argv: Sequence[str]) -> list[str]:
    """What a QEMU was started with that has it write a log."""
    return [f"-{option}" for option in _LOG for _ in _values(argv, option)]


def takes_memory(argv: Sequence[str]) -> bool:
    """Whether memory may be plugged in while the machine is there; files that are read may say so, too."""
    return any("maxmem=" in value for value in _values(argv, "m")) or bool(config_files(argv))


def last_values(
    option: str, first: str, argv: Sequence[str], files: Sequence[Group] = (), kind: str = ""
) -> dict[str, str]:
    """The values of an option that there is once; where it is given again, what is said later counts.

    ``first`` is the name of a value that has none, ``kind`` what the option is called in a file, if not the same.
    """
    found: dict[str, str] = {}
    for group in files:
        found |= group.values if group.kind == (kind or option) else {}
    for value in _values(argv, option):
        found |= _options(value, first)
    return found


def config_files(argv: Sequence[str]) -> list[str]:
    """The files that ``-readconfig`` names."""
    return list(_values(argv, "readconfig"))


def parse_config(text: str) -> list[Group]:
    """The groups of a file of ``-readconfig``: ``[kind "id"]``, then lines ``key = "value"``. Others are skipped."""
    groups: list[Group] = []
    values: dict[str, str] = {}
    for line in text.split("\n"):
        if match := re.fullmatch(r'\s*\[\s*([\w-]+)(?:\s+"([^"]*)")?\s*\]\s*', line):
            values = {"id": match[2]} if match[2] else {}
            groups.append(Group(match[1], values))
        elif match := re.fullmatch(r'\s*([\w.-]+)\s*=\s*"([^"]*)"\s*', line):
            values[match[1]] = match[2]
    return groups


def _all(kind: str, argv: Sequence[str], files: Sequence[Group]) -> Iterator[Mapping[str, str]]:
    yield from (group.values for group in files if group.kind == kind)
    for value in _values(argv, kind):
        yield _options(value, _FIRST[kind])


def _monitors(argv: Sequence[str], files: Sequence[Group], *, control: bool) -> Iterator[Mapping[str, str]]:
    """The character device of each monitor, in control mode (QMP) or not."""
    devices = {values.get("id", ""): values for values in _all("chardev", argv, files)}
    for option in ("qmp", "qmp-pretty") if control else ("monitor",):
        for value in _values(argv, option):
            yield _shorthand(value, devices)
    for values in _all("mon", argv, files):
        if (values.get("mode") == "control") == control:
            yield devices.get(values.get("chardev", ""), {})
    for values in _monitor_objects(argv, files):
        if values.get("qom-type") == ("monitor-qmp" if control else "monitor-hmp"):
            yield devices.get(values.get("chardev", ""), {})


def _monitor_objects(argv: Sequence[str], files: Sequence[Group]) -> Iterator[Mapping[str, str]]:
    """Monitors as QEMU 11.1 has them, and libvirt for that; other objects are left out where they are not parsed."""
    yield from (group.values for group in files if group.kind == "object")
    yield from (parse_object(value) for value in _values(argv, "object") if "monitor-" in value)


def parse_object(text: str) -> dict[str, str]:
    """The value of ``-object``, which may be JSON; empty if that cannot be read. ``qom-type`` is what it is."""
    if not text.startswith("{"):
        return _options(text, "qom-type")
    import json  # large, and the rest needs none

    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return {key: str(value) for key, value in values.items()} if isinstance(values, dict) else {}


def _shorthand(value: str, devices: Mapping[str, Mapping[str, str]]) -> Mapping[str, str]:
    """``unix:PATH,...``, ``tcp:HOST:PORT,...`` or ``chardev:ID``, as ``-qmp`` takes it; others by their kind."""
    kind, _, rest = value.partition(":")
    if kind == "chardev":
        return devices.get(rest, {})
    if kind not in _SOCKETS:
        return {"backend": kind.partition(",")[0], "path": rest}
    if kind == "unix":
        return {"backend": "socket", **_options(rest, "path")}
    options = _options(rest, "address")
    host, _, port = options.get("address", "").rpartition(":")
    return {"backend": "socket", **options, "host": host, "port": port, kind: "on"}


def _socket(options: Mapping[str, str]) -> QmpSocket | None:
    if options.get("backend") != "socket" or options.get("server") not in _ON:
        return None
    ident, wrapped = options.get("id", ""), _wrapped(options)
    if "path" in options:
        return QmpSocket(path=options["path"], abstract=options.get("abstract") in _ON, ident=ident, wrapped=wrapped)
    if (fd := decimal(options.get("fd", ""), _HIGHEST_FD)) is not None:
        return QmpSocket(fd=fd, ident=ident, wrapped=wrapped)
    if (port := decimal(options.get("port", ""), HIGHEST_PORT)) is not None:
        host, last = _reachable(options.get("host", "").strip("[]")), decimal(options.get("to", ""), HIGHEST_PORT) or 0
        return QmpSocket(host=host, port=port, last=last, ident=ident, wrapped=wrapped)
    return None


def _wrapped(options: Mapping[str, str]) -> str:
    if options.get("tls-creds"):
        return "TLS"
    return "a websocket" if options.get("websocket") in _ON else ""


def _place(options: Mapping[str, str]) -> str:
    """Where a character device is, for a text."""
    if "host" in options or "port" in options:
        return f"{options.get('host') or 'localhost'}:{options.get('port', '')}"
    if options.get("backend", "") in _NO_SOCKETS and not options.get("path"):
        return options["backend"]
    return options.get("path") or (f"descriptor {options['fd']}" if "fd" in options else "a device that is not named")


def _reachable(host: str) -> str:
    """Where to connect to a server that listens on ``host``."""
    return {"": "localhost", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
