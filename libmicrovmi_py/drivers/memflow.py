# SPDX-License-Identifier: Apache-2.0
"""Machines that memflow reaches, through the Python package of that name, if it is there."""

from __future__ import annotations

import importlib.util
import logging
import os
import pwd
import sys
import threading
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.machinery import PathFinder
from pathlib import Path

from libmicrovmi_py.declare import Any
from libmicrovmi_py.drivers.base import Driver
from libmicrovmi_py.errors import (
    DriverUnavailableError,
    InvalidArgumentError,
    IoError,
    MicrovmiError,
    ReadOnlyError,
    not_mapped,
)
from libmicrovmi_py.model import PAGE_SHIFT, PAGE_SIZE, PHYSICAL_BITS, DriverType
from libmicrovmi_py.params import Parameters

_PACKAGE = "memflow"
_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"

_TRIP = 1 << 20
"""Bytes of a read: the package makes a number of every word, and nobody else runs Python meanwhile."""

_WORD = 8
_ADVICE = "memflowup install NAME, or say plugins="
_QUOTES = "\"'`"


class MemflowDriver(Driver):
    """What a connector of memflow reaches. Memory that does not exist below the maximum address is read as zeros, and
    not written: the package does not tell.
    """

    name = "memflow"
    type = DriverType.MEMFLOW
    parameters = {  # noqa: RUF012
        "memflow_connector_name": "the connector, such as qemu, kvm or pcileech",
        "memflow_connector_args": "its arguments: KEY=VALUE,...",
        "package": f"folder that has the Python package {_PACKAGE}, if it is not installed",
        "plugins": "folder that has the connector, if memflowup did not install it",
    }

    def __init__(self, package: Any, connector: Any) -> None:
        """Raises ``DriverUnavailableError`` for a connector that tells no memory."""
        self._word = package.c_uint64
        self._byte = package.c_uint8
        self._connector = connector
        self._lock = threading.Lock()
        with _told(DriverUnavailableError, "memflow does not tell the memory's size"):
            last, self._read_only = int(connector.max_address), bool(connector.readonly)
        self._max_addr = -(-last // PAGE_SIZE) * PAGE_SIZE
        if not 0 < self._max_addr <= 1 << PHYSICAL_BITS:
            raise DriverUnavailableError(f"memflow tells a maximum address that cannot be: {last:#x}")

    @classmethod
    def open(cls, params: Parameters) -> MemflowDriver:
        """Make the connector that is named; ``vm_name``, if given, is its target.

        Raises ``InvalidArgumentError`` without a name or for arguments of another form, ``DriverUnavailableError``
        with memflow's reason.
        """
        name = params.get("memflow_connector_name")
        if not name:
            raise InvalidArgumentError(
                "Memflow driver requires the memflow_connector_name parameter (and memflow_connector_args)"
            )
        arguments = _arguments(params.vm_name or "", params.get("memflow_connector_args", ""))
        package = _package(params.get("package"))
        given = params.get("plugins")
        return cls(package, _connector(package, [given] if given else _plugin_folders(), name, arguments))

    @property
    def max_addr(self) -> int:
        """One past the last frame that the connector tells of."""
        return self._max_addr

    def read_frame(self, frame: int, offset: int, buffer: memoryview) -> None:
        """One call of the package."""
        address = (frame << PAGE_SHIFT) + offset
        if address >= self._max_addr:
            raise not_mapped(address)
        self._read(address, buffer)

    def read_range(self, address: int, buffer: memoryview) -> int:
        """Calls of up to 1 MiB, up to the maximum address."""
        size = max(0, min(len(buffer), self._max_addr - address))
        for done in range(0, size, _TRIP):
            try:
                self._read(address + done, buffer[done : min(done + _TRIP, size)])
            except IoError as err:
                raise IoError(str(err), address=address + done, requested=len(buffer), completed=done) from err
        return size

    def _read(self, address: int, buffer: memoryview) -> None:
        """The package reads into words, a number each: whole ones, of which the wanted bytes are taken."""
        skip = address % _WORD
        count = -(-(skip + len(buffer)) // _WORD)
        with self._lock, _told(IoError, f"memflow cannot read at {address:#x}"):
            words = self._connector.phys_read(address - skip, self._word * count)
            content = memoryview(array("Q", words[:])).cast("B")
        buffer[:] = content[skip : skip + len(buffer)]

    def write_frame(self, frame: int, offset: int, data: memoryview) -> None:
        """One call of the package."""
        address = (frame << PAGE_SHIFT) + offset
        if self._read_only:
            raise ReadOnlyError("this connector of memflow cannot write", address=address)
        if address >= self._max_addr:
            raise not_mapped(address)
        with self._lock, _told(IoError, f"memflow cannot write at {address:#x}"):
            self._connector.phys_write(address, self._byte * len(data), bytes(data))

    def close(self) -> None:
        """Let go of the connector, which ends with a call under way in another thread."""
        with self._lock:
            self._connector = None


def _arguments(target: str, items: str) -> str:
    """The text that memflow takes: TARGET:KEY=VALUE,..., with quotes about what it would cut."""
    quoted = []
    for item in filter(None, items.split(",")):
        key, separator, value = item.partition("=")
        if not separator or not key:
            raise InvalidArgumentError(f"Invalid format for Memflow connector argument (key=value), got {item}")
        quoted.append(f"{key}={_quoted(value)}")
    return f"{_quoted(target)}:{','.join(quoted)}"


def _quoted(value: str) -> str:
    if not any(mark in value for mark in ":=,") or value[0] in _QUOTES:
        return value
    quote = next((quote for quote in _QUOTES if quote not in value), "")
    return f"{quote}{value}{quote}"


def _connector(package: Any, folders: Sequence[str], name: str, arguments: str) -> Any:
    """The connector out of the first of the folders that has it.

    An inventory that is told no folder looks through the working directory too: it reads every file there as a whole,
    and ends the process if the memory for one is not there.
    """
    reasons: dict[str, None] = {}
    for folder in folders:
        try:
            with _told(DriverUnavailableError, f"memflow cannot make the connector {name}"):
                return package.Inventory(folder).create_connector(name, None, arguments)
        except DriverUnavailableError as err:
            reasons[str(err)] = None
    raise DriverUnavailableError("; ".join(reasons) or f"no folder has plugins of memflow: {_ADVICE}")


def _plugin_folders() -> list[str]:
    """Where memflowup puts plugins and memflow looks for them, but for what the environment names.

    The user's own is that of the password database, as the environment of a program that runs as root is another's.
    """
    folders = [f"{root}/memflow" for root in ("/opt", "/lib", "/usr/lib", "/usr/local/lib", "/lib64", "/usr/lib64")]
    with suppress(KeyError):
        folders.append(f"{pwd.getpwuid(os.geteuid()).pw_dir}/.local/lib/memflow")
    return list(dict.fromkeys(os.path.realpath(folder) for folder in folders if os.path.isdir(folder)))


def _package(folder: str | None) -> Any:
    """The package, as the host imports it, or else out of a folder of packages, without changing ``sys.path``."""
    found = sys.modules.get(_PACKAGE)
    if found is not None:
        return found
    logging.getLogger(_PACKAGE).addHandler(logging.NullHandler())  # else its errors go to standard error
    with _told(DriverUnavailableError, f"the Python package {_PACKAGE} cannot be imported"):
        spec = PathFinder.find_spec(_PACKAGE, [folder]) if folder else _find()
        if spec is None or spec.loader is None:
            where = folder or f"Python {_VERSION}"
            raise DriverUnavailableError(
                f"no Python package {_PACKAGE} in {where}: pip install memflow, or say package="
            )
        module = importlib.util.module_from_spec(spec)
        sys.modules[_PACKAGE] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[_PACKAGE]
            raise
    return module


def _find() -> Any:
    """Where a Python program of the host, or a program of this Python, would find the package."""
    return importlib.util.find_spec(_PACKAGE) or PathFinder.find_spec(_PACKAGE, _folders())


def _folders() -> list[str]:
    """The folders of packages of the Python that the library was built for: its own, and Debian's.

    Not the user's: the environment of a program that runs as root says who that is.
    """
    library = Path(logging.__file__).parents[1]  # some modules of Python are built in and have no file
    own = Path(sys.executable).parent.parent / "lib" / f"python{_VERSION}"
    folders = [own / "site-packages", library / "site-packages"]
    folders += [Path(f"/usr/local/lib/python{_VERSION}/dist-packages"), Path("/usr/lib/python3/dist-packages")]
    return [str(folder) for folder in folders]


@contextmanager
def _told(kind: type[MicrovmiError], what: str) -> Iterator[None]:
    """Turn what the package raises into one line; a panic of its Rust code is no ``Exception``."""
    try:
        yield
    except (MicrovmiError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as err:
        reason = " ".join(str(err).split()) or type(err).__name__
        raise kind(f"{what}: {reason}") from err


DRIVER = MemflowDriver
