# SPDX-License-Identifier: Apache-2.0
"""The memory of machines of Firecracker and of Cloud Hypervisor, on x86-64, by their process alone.

Both give the guest RAM from address 0 on, with gaps at addresses that their source has, and map each part of it on its
own. How much there is is on the command line, or in the file that this names. A machine that was set up through the API
of its monitor is refused, as is every other whose memory is not certain: nobody is asked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from libmicrovmi_py.declare import ClassVar, NamedTuple, replace
from libmicrovmi_py.drivers.base import able_by_class
from libmicrovmi_py.drivers.hosted import Held, HostedDriver
from libmicrovmi_py.errors import DriverUnavailableError, InvalidArgumentError, MicrovmiError, about_a_machine, listed
from libmicrovmi_py.listed import ListedMachine, uri_of
from libmicrovmi_py.params import Parameters
from libmicrovmi_py.transport.fds import read_regular
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.shape import decimal

_MIB = 1 << 20
_GIB = 1 << 30
_MOST = 1 << 46
"""Bytes of RAM that no such machine has."""

_HIGHEST_PID = 1 << 22
_LARGEST_CONFIG = 1 << 20

_Gap = tuple[int, int]
_Options = Mapping[str, Sequence[str]]

_FIRECRACKER_GAPS: tuple[tuple[_Gap, ...], ...] = (
    ((0xD0000000, 4 * _GIB),),
    ((0xC0000000, 4 * _GIB), (256 * _GIB, 512 * _GIB)),
)
"""Start and end of what is no RAM, in ascending order: versions before PCI, and with it."""

_CLOUD_GAPS: tuple[tuple[_Gap, ...], ...] = (((0xC0000000, 4 * _GIB),),)

_FIRECRACKER_OPTIONS = frozenset(
    (
        *("id", "api-sock", "config-file", "no-api", "boot-timer", "enable-pci", "level", "log-path", "metrics-path"),
        *("module", "show-level", "show-log-origin", "seccomp-filter", "no-seccomp", "metadata", "mmds-size-limit"),
        *("http-api-max-payload-size", "start-time-us", "start-time-cpu-us", "parent-cpu-time-us"),
    )
)
_CLOUD_OPTIONS = frozenset(
    (
        *("api-socket", "balloon", "cmdline", "console", "cpus", "debug-console", "device", "disk", "event-monitor"),
        *("firmware", "fs", "initramfs", "kernel", "landlock", "landlock-rules", "log-file", "memory", "net", "pmem"),
        *("pci-segment", "pvpanic", "rate-limit-group", "rng", "seccomp", "serial", "tpm", "user-device", "vdpa"),
        *("vsock", "watchdog"),
    )
)
"""Options that leave alone where memory is; ``memory`` is looked at."""

_CLOUD_MEMORY = frozenset(("size", "mergeable", "shared", "hugepages", "hugepage_size", "prefault", "reserve", "thp"))
_CLOUD_DEFAULT = 512 * _MIB
_SIZE = re.compile(r"([0-9]{1,15})([KMGT]?)")
_UNITS = {"": 1, "K": 1 << 10, "M": _MIB, "G": _GIB, "T": 1 << 40}


class UncertainError(Exception):
    """Why it is not certain where the memory of a machine is, for the text of an error."""


class _Kind(NamedTuple):
    """A monitor of virtual machines: what its program is called, the options with a machine's name and with the path of
    its API, where its guests have no RAM, by version, and how much RAM one has by its options."""

    title: str
    program: re.Pattern[str]
    name: str
    api: str
    gaps: tuple[tuple[_Gap, ...], ...]
    size: Callable[[Process, _Options], int]


class Machine(NamedTuple):
    """A running machine: of which kind, its process and the options of that."""

    kind: _Kind
    process: Process
    options: _Options

    @property
    def name(self) -> str:
        """What it was called, ``""`` for one that cannot have a name or was given none."""
        return _last(self.options, self.kind.name)

    def is_meant(self, text: str) -> bool:
        """Whether a name, a process id or the path of an API's socket means it."""
        socket = _last(self.options, self.kind.api).removeprefix("path=").partition(",")[0]
        return text in (self.name, socket) or decimal(text, _HIGHEST_PID) == self.process.pid

    def __str__(self) -> str:
        return f"{self.name or '(no name)'} ({self.kind.title}, pid {self.process.pid})"


class VmmDriver(HostedDriver):
    """All RAM of such a machine, and nothing else. Memory that devices share with the guest (pmem) does not exist."""

    name = "vmm"
    parameters: ClassVar[dict[str, str]] = {
        "mapped": "no: shared RAM is not mapped but read by system calls; yes if not given",
    }
    remedy = "of such a machine there is the memory alone"

    @classmethod
    def open(cls, params: Parameters) -> VmmDriver:
        """Find the machine ``vm_name``.

        Raises ``InvalidArgumentError`` for no or several such machines, ``DriverUnavailableError`` where it is not
        certain what memory it has, ``PermissionDeniedError``, ``VmGoneError``.
        """
        if not params.vm_name:
            raise InvalidArgumentError("vmm driver requires a VM name parameter (vm_name: an id, pid or API socket)")
        machine = _found(params.vm_name)
        with about_a_machine():
            return cls._opened(machine, mapped=params.yes("mapped", True))

    @classmethod
    def machines(cls) -> Iterator[ListedMachine]:
        """Every machine of these that runs, those that are refused included."""
        running = list(_machines())
        names = [machine.name for machine in running]
        for machine in running:
            only = machine.name and names.count(machine.name) == 1
            yield cls._listed(machine, machine.name if only else str(machine.process.pid))

    @classmethod
    def _listed(cls, machine: Machine, text: str) -> ListedMachine:
        process = machine.process
        plain = ListedMachine(
            cls.name,
            cls.type,
            machine.name,
            uri_of(cls.name, vm_name=text),
            process_id=process.pid,
            user_id=(process.uids() or (None,))[-1],
        )
        try:
            driver = cls._opened(machine, mapped=False)
        except MicrovmiError as err:
            return replace(plain, reason=str(err))
        driver.close()
        memory = sum(region.size for region in driver.regions())
        return replace(plain, memory=memory, abilities=able_by_class(cls), reason=cls.remedy)

    @classmethod
    def _opened(cls, machine: Machine, *, mapped: bool) -> VmmDriver:
        try:
            held = _memory(machine)
        except UncertainError as err:
            raise DriverUnavailableError(f"{machine}: where its memory lies is not certain: {err}") from err
        return cls(machine.process, held, mapped=mapped)


def _machines() -> Iterator[Machine]:
    """Every machine of these that runs, by one look at each process."""
    for process in Process.all(lambda name: any(kind.program.fullmatch(name) for kind in _KINDS)):
        name, argv = process.executable(), process.argv()
        for kind in _KINDS if argv else ():
            if kind.program.fullmatch(name):
                yield Machine(kind, process, _options(argv))


def _found(text: str) -> Machine:
    running = list(_machines())
    matches = [machine for machine in running if machine.is_meant(text)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        told = f"{len(matches)} machines are named {text!r}: give a process id instead"
        raise InvalidArgumentError(f"{told}; running: {listed([str(machine) for machine in matches])}")
    what = "no machine of Firecracker or Cloud Hypervisor has the id, process id or API socket"
    raise InvalidArgumentError(f"{what} {text!r}; running: {listed([str(machine) for machine in running])}")


def _options(argv: Sequence[str]) -> _Options:
    """The options of a command line, each with all values that follow it."""
    options: dict[str, list[str]] = {}
    values: list[str] = []
    for word in argv[1:]:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            values = options.setdefault(name, [])
            values += [value] if equals else []
        elif not re.fullmatch("-v+", word):
            values.append(word)
    return options


def _last(options: _Options, name: str) -> str:
    return next(reversed(options.get(name, ())), "")


def _memory(machine: Machine) -> list[Held]:
    """The machine's RAM. Raises ``UncertainError``."""
    if os.uname().machine != "x86_64":
        raise UncertainError("the layout is known on x86-64 only")
    kind, process = machine.kind, machine.process
    size = kind.size(process, machine.options)
    layouts = dict.fromkeys(_pieces(size, gaps) for gaps in kind.gaps)
    fitting = [held for pieces in layouts if (held := _held(process, pieces))]
    if len(fitting) != 1:
        raise UncertainError(f"its process has not one mapping for each part of {size:#x} bytes of RAM")
    return fitting[0]


def _pieces(size: int, gaps: Sequence[_Gap]) -> tuple[tuple[int, int], ...]:
    """Start and size of each part of so much RAM around these gaps."""
    pieces = []
    start = 0
    for gap, end in gaps:
        part = min(size, gap - start)
        pieces.append((start, part))
        start, size = end, size - part
    return tuple(piece for piece in (*pieces, (start, size)) if piece[1])


def _held(process: Process, pieces: Sequence[tuple[int, int]]) -> list[Held]:
    """The mappings of these parts; none unless there is exactly one of each size."""
    found = [(start, size, process.areas(size)) for start, size in pieces]
    if any(len(areas) != 1 for _, _, areas in found) or len({size for _, size in pieces}) < len(pieces):
        return []
    return [Held(start, size, areas[0], 0) for start, size, areas in found]


def _checked_size(size: int) -> int:
    if not 0 < size < _MOST or size % _MIB:
        raise UncertainError(f"{size} bytes are no size of RAM")
    return size


def _check_options(options: _Options, known: frozenset[str]) -> None:
    if unknown := sorted(options.keys() - known):
        raise UncertainError(f"what --{unknown[0]} does to it is not known here")


def _firecracker_size(process: Process, options: _Options) -> int:
    """What the file of ``--config-file`` says."""
    _check_options(options, _FIRECRACKER_OPTIONS)
    name = _last(options, "config-file")
    if not name:
        raise UncertainError("it was set up through its API, not by --config-file")
    config = _config(process, name)
    if "memory-hotplug" in config:
        raise UncertainError("memory may have been plugged in")
    machine = config.get("machine-config")
    size = machine.get("mem_size_mib") if isinstance(machine, dict) else None
    if not isinstance(size, int) or isinstance(size, bool):
        raise UncertainError(f"{name} has no mem_size_mib")
    return _checked_size(size * _MIB)


def _config(process: Process, name: str) -> dict[str, object]:
    """A file of JSON as the process sees it."""
    import json  # large, and nothing else needs it

    place = process.path("root") + name if os.path.isabs(name) else os.path.join(process.path("cwd"), name)
    try:
        config = json.loads(read_regular(place, _LARGEST_CONFIG))
    except (OSError, ValueError, RecursionError) as err:
        raise UncertainError(f"{name} cannot be read ({getattr(err, 'strerror', '') or 'no JSON'})") from err
    return config if isinstance(config, dict) else {}


def _cloud_size(process: Process, options: _Options) -> int:
    """What ``--memory`` says."""
    platform = ",".join(options.get("platform", ()))
    if re.search(r"\b(?:tdx|sev_snp)=(?:on|true)", platform):
        raise UncertainError("the guest's memory is encrypted")
    _check_options(options, _CLOUD_OPTIONS | {"platform"})
    if not options.keys() & {"kernel", "firmware"}:
        raise UncertainError("it was set up through its API, not by the command line")
    if "memory" not in options:
        return _CLOUD_DEFAULT
    values = dict(item.partition("=")[::2] for item in _last(options, "memory").split(","))
    if unknown := sorted(values.keys() - _CLOUD_MEMORY):
        raise UncertainError(f"what {unknown[0]} of --memory does to it is not known here")
    match = _SIZE.fullmatch(values.get("size", "512M"))
    return _checked_size(int(match[1]) * _UNITS[match[2]] if match else 0)


_KINDS = (
    _Kind(
        "Firecracker",
        re.compile(r"firecracker(?:-v[0-9][\w.]*)?(?:-x86_64)?"),
        "id",
        "api-sock",
        _FIRECRACKER_GAPS,
        _firecracker_size,
    ),
    _Kind(
        "Cloud Hypervisor",
        re.compile(r"cloud-hypervisor(?:-static)?(?:-v[0-9][\w.]*)?"),
        "",
        "api-socket",
        _CLOUD_GAPS,
        _cloud_size,
    ),
)

DRIVER = VmmDriver
