# SPDX-License-Identifier: Apache-2.0
"""Where the guest's memory is, asked of the monitor: the first time all of it, then what can have changed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from libmicrovmi_py.declare import NamedTuple, replace
from libmicrovmi_py.drivers.qemu.flatview import (
    Extent,
    FlatRange,
    has_more,
    main_blocks,
    parse_flat_view,
    system_view,
    without_owners,
)
from libmicrovmi_py.errors import IoError
from libmicrovmi_py.model import MemoryKind
from libmicrovmi_py.transport.qmp import QmpClient, QmpCommandError, Question
from libmicrovmi_py.transport.shape import hexadecimal, integer, record, text

_VIEW = "info mtree -f"
_HOST = re.compile(r"Host virtual address for 0x[0-9a-f]+ \((.*)\) is 0x([0-9a-f]+)\s*")
_BACKENDS = "owner:{obj path=/objects/"
"""Whose the memory of a backend is: no two of its ranges are of different blocks."""

_DEVICES = "owner:{dev "
"""Whose memory stays of one kind for the host, as a device always takes it the same way."""

_ATTEMPTS = 5


class Asked(NamedTuple):
    """What a reading asked of a connection: the flat view, and either the host addresses that may be others by now or,
    of a reading of everything, the memory backends."""

    view: Question
    hosts: Sequence[Question]
    backends: Question | None


class _Plugs(NamedTuple):
    """What tells the backends of devices: the devices by the folders they are in, and those that are memory."""

    folders: dict[str, Question]
    plugged: Question


class Layout:
    """The memory of one machine.

    The host address of memory that nobody can take out of the machine is asked once, as long as the flat view is the
    same; that of all other memory at each reading, as something else may have come in its place.
    """

    def __init__(self) -> None:
        self._view = ""
        self._extents: Sequence[Extent] = ()
        self._loose: dict[FlatRange, int] = {}

    @property
    def extents(self) -> Sequence[Extent]:
        """The machine's memory, as of the last reading."""
        return self._extents

    def ask(self, client: QmpClient) -> Asked:
        """Begin a reading, which :meth:`take` ends."""
        if not self._extents:
            return _ask_all(client)
        return Asked(client.ask_human(_VIEW), [_ask_host(client, item) for item in self._loose], None)

    def take(self, client: QmpClient, asked: Asked) -> tuple[Sequence[Extent], bool]:
        """The machine's memory, in ascending order, and whether it is what it was at the last reading.

        In memory of devices there may be other files behind it all the same. A guest that runs may change its map while
        it is read; then it is read again, a few times. Raises ``IoError`` if it still changes.
        """
        if asked.backends is None:
            if system_view(asked.view.unchanged()) == self._view and self._is_there(asked.hosts):
                return self._extents, all(item.whose.startswith(_DEVICES) for item in self._loose)
            asked = _ask_all(client)
        self._extents = ()
        for _ in range(_ATTEMPTS):
            view = _owned_view(client, asked)
            ranges = parse_flat_view(view.replace("\r\n", "\n"))
            if self._read(client, ranges, asked.backends or _ask_backends(client)):
                self._view = without_owners(view)
                return self._extents, False
            asked = _ask_all(client)
        if not ranges:
            raise IoError("the machine has no memory: it was started with -M none, or nothing has been plugged in yet")
        raise IoError("QEMU's memory map keeps changing: pause the machine and try again")

    def _is_there(self, hosts: Sequence[Question]) -> bool:
        """Whether all that may be elsewhere by now is where it was."""
        return all(
            _host(item, question) == host for (item, host), question in zip(self._loose.items(), hosts, strict=True)
        )

    def _read(self, client: QmpClient, ranges: Sequence[FlatRange], told: Question) -> bool:
        """Take all anew; ``False`` if the map has changed since the flat view was made."""
        backends = {text(item["id"], "the id of a memory backend") for item in told.records() if "id" in item}
        plugs = _ask_plugs(client) if has_more(ranges, backends) else None
        leaders = _leaders(ranges)
        asked = {leader: _ask_host(client, leader) for leader in dict.fromkeys(leaders.values())}
        main = main_blocks(ranges, backends - _shared(client, plugs) if plugs else backends)
        plugged = _plugged(plugs) if plugs else []
        hosts = {leader: _host(leader, question) for leader, question in asked.items()}
        found: list[Extent] = []
        self._loose = {}
        for item, leader in leaders.items():
            if (host := hosts[leader]) is None:
                return False
            extent = _extent(item, main, plugged, host + item.offset - leader.offset)
            found.append(extent)
            if extent.unsteady and not _stays(item.whose):
                self._loose[leader] = host
        self._extents = _joined(found)
        return bool(found)


def _ask_all(client: QmpClient) -> Asked:
    return Asked(client.ask_human(f"{_VIEW} -o"), (), _ask_backends(client))


def _ask_backends(client: QmpClient) -> Question:
    return client.ask("query-memdev")


def _owned_view(client: QmpClient, asked: Asked) -> str:
    """The flat view with whose each block is; QEMU before 3.0 does not tell."""
    told = asked.view.unchanged()
    return system_view(told if "FlatView" in told else client.ask_human(_VIEW).unchanged())


def _stays(whose: str) -> bool:
    """Whose memory stays where it is: the machine's own, and that of a device whose name QEMU never gives again."""
    folder, _, name = whose.removeprefix("owner:{dev path=").rpartition("/")
    numbered = folder in ("/machine/unattached", "/machine/peripheral-anon") and name.startswith("device[")
    return numbered or whose.startswith("parent:{obj path=/machine/")


def _leaders(ranges: Sequence[FlatRange]) -> dict[FlatRange, FlatRange]:
    """For each range the one whose host address tells its own: the largest of the same block of a backend.

    Other blocks that bear the same name need not be the same.
    """
    largest: dict[str, FlatRange] = {}
    for item in ranges:
        if item.whose.startswith(_BACKENDS):
            largest[item.whose] = max(item, largest.get(item.whose, item), key=lambda known: known.size)
    return {item: largest.get(item.whose, item) for item in ranges}


def _ask_host(client: QmpClient, item: FlatRange) -> Question:
    return client.ask_human(f"gpa2hva {item.start:#x}")


def _host(item: FlatRange, question: Question) -> int | None:
    """Where in QEMU's process a range is; ``None`` if the map has changed since."""
    match = _HOST.fullmatch(question.human())
    return hexadecimal(match[2], "an address of gpa2hva") if match and match[1] == item.block else None


def _ask_plugs(client: QmpClient) -> _Plugs:
    folders = {name: client.ask("qom-list", path=name) for name in ("/machine/peripheral", "/machine/peripheral-anon")}
    return _Plugs(folders, client.ask("query-memory-devices"))


def _shared(client: QmpClient, plugs: _Plugs) -> set[str]:
    """The ids of the backends whose memory an ivshmem device shares with others."""
    devices = [
        f"{folder}/{text(item.get('name'), 'the name of a device')}"
        for folder, question in plugs.folders.items()
        for item in question.records()
        if "ivshmem" in text(item.get("type"), "the type of a device")
    ]
    return {_backend_of(client, device) for device in devices}


def _backend_of(client: QmpClient, device: str) -> str:
    try:
        return text(client.execute("qom-get", path=device, property="memdev"), "a device's memory").rpartition("/")[2]
    except QmpCommandError:
        return ""


def _plugged(plugs: _Plugs) -> list[tuple[int, int]]:
    """Start and end of the guest addresses that memory devices (DIMMs and the like) have, or may come to have."""
    return [_span(record(item.get("data"), "a memory device")) for item in plugs.plugged.records()]


def _span(device: dict[str, object]) -> tuple[int, int]:
    start = _bytes(device, "addr", "memaddr")
    return start, start + _bytes(device, "max-size", "size")


def _bytes(device: dict[str, object], *names: str) -> int:
    """The first of these properties that a memory device has, in bytes; 0 if it has none of them."""
    value = next((device[name] for name in names if name in device), 0)
    return integer(value, f"{names[0]} of a memory device", 0, (1 << 64) - 1)


def _extent(item: FlatRange, main: set[str], plugged: Sequence[tuple[int, int]], host: int) -> Extent:
    """A range as a :class:`Extent`. Memory of devices, and main memory that was plugged in, may be unplugged."""
    kind = MemoryKind.RAM if item.block in main else MemoryKind.DEVICE
    kind = MemoryKind.ROM if item.read_only else kind
    unsteady = item.block not in main or any(start <= item.start < end for start, end in plugged)
    return Extent(item.start, item.size, kind, item.block, item.offset, host, unsteady)


def _joined(extents: Iterable[Extent]) -> list[Extent]:
    result: list[Extent] = []
    for extent in extents:
        if result and extent.continues(result[-1]):
            last = result.pop()
            extent = replace(last, size=last.size + extent.size)
        result.append(extent)
    return result
