# SPDX-License-Identifier: Apache-2.0
"""An nbdkit that serves one machine: which plugin it takes, how it begins, and how it ends."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.errors import DriverUnavailableError, InvalidArgumentError, IoError

PLUGIN = "nbdkit-microvmi-plugin.so"
PACKAGE = Path(__file__).resolve().parents[2]
_PLACES = (PACKAGE.parent, PACKAGE.parent / "build" / "lib" / "libmicrovmi")
"""Where a build leaves the plugin in C: beside the installed package, or in a checkout."""

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_GREETING = b"NBDMAGICIHAVEOPT"
_FAREWELL = b"\0\0\0\1" + b"IHAVEOPT" + b"\0\0\0\2" + b"\0\0\0\0"
"""The flags of a client, and the option that ends a connection politely."""

_SOON = 0.02


class Export(NamedTuple):
    """What is served: what opens the machine, ``live``, ``snapshot`` or ``pause``, and ``raw``, ``elf`` or ``lime``."""

    machine: str
    view: str
    format: str = "raw"


class Place(NamedTuple):
    """Where it is served: a UNIX socket, or a host of this computer and a TCP port."""

    path: str = ""
    host: str = ""
    port: int = 0

    @property
    def uri(self) -> str:
        """What clients connect to."""
        if self.path:
            return f"nbd+unix:///?socket={quote(self.path)}"
        return f"nbd://[{self.host}]:{self.port}" if ":" in self.host else f"nbd://{self.host}:{self.port}"

    @property
    def options(self) -> list[str]:
        """nbdkit's."""
        return ["--unix", self.path] if self.path else ["--ipaddr", self.host, "--port", str(self.port)]

    def connect(self) -> socket.socket:
        """A connection. Raises ``OSError``."""
        if not self.path:
            return socket.create_connection((self.host, self.port))
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(self.path)
        except OSError:
            connection.close()
            raise
        return connection


def loopback(text: str) -> Place:
    """The place of ``[HOST:]PORT``. Raises ``InvalidArgumentError`` for a host that is not this computer alone."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if host not in _LOOPBACK:
        raise InvalidArgumentError(f"{host} is not this computer alone: listen at 127.0.0.1, and tunnel it (ssh -L)")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise InvalidArgumentError(f"{port!r} is no TCP port: [HOST:]PORT")
    return Place(host="127.0.0.1" if host == "localhost" else host, port=int(port))


@contextmanager
def private_place() -> Iterator[Place]:
    """A UNIX socket in a directory of the user's own, which is removed at the end."""
    folder = tempfile.mkdtemp(prefix="microvmi-nbd-", dir=_own_runtime_folder())
    try:
        yield Place(path=f"{folder}/socket")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _own_runtime_folder() -> str | None:
    """``$XDG_RUNTIME_DIR``; not that of another user, which ``sudo`` or ``su`` may have left there."""
    folder = os.environ.get("XDG_RUNTIME_DIR", "")
    try:
        return folder if os.path.isabs(folder) and os.stat(folder).st_uid == os.geteuid() else None
    except OSError:
        return None


def command(nbdkit: str, export: Export, place: Place) -> list[str]:
    """The whole command line of nbdkit."""
    plugin, parameters = _plugin(nbdkit, export)
    common = [nbdkit, "--foreground", "--readonly", "--exit-with-parent", *place.options]
    return [*common, *plugin, f"uri={export.machine}", f"view={export.view}", *parameters]


def _plugin(nbdkit: str, export: Export) -> tuple[Sequence[str], Sequence[str]]:
    """Which plugin it is, and what only that one takes. Files of other formats are laid out in Python."""
    found = next((str(place / PLUGIN) for place in _PLACES if (place / PLUGIN).exists()), None)
    if found is not None and export.format == "raw":
        return [found], ()
    probe = subprocess.run([nbdkit, "python", "--version"], capture_output=True, stdin=subprocess.DEVNULL, check=False)
    if probe.returncode:
        built = "" if export.format != "raw" else " (or nbdkit-plugin-dev, and build libmicrovmi with it)"
        raise DriverUnavailableError(f"nbdkit has no Python: apt install nbdkit-plugin-python{built}")
    return ["python", str(Path(__file__).with_name("plugin.py"))], [f"format={export.format}"]


def _environment() -> dict[str, str]:
    """With our package, and the cffi that it uses here, for a plugin in Python."""
    spec = importlib.util.find_spec("_cffi_backend")
    places = [str(PACKAGE.parent), *([str(Path(spec.origin).parent)] if spec and spec.origin else [])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(places))}


@contextmanager
def running(
    line: Sequence[str], place: Place, crashed: Callable[[], None] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """An nbdkit that serves, ended with the block: it lets the machine go, and this waits for it.

    ``crashed`` is called if a signal ended it, during its start as well: it has let nothing go then. Raises ``IoError``
    with nbdkit's reason if it does not come so far. If this process is killed it ends as well.
    """
    _check_free(place)
    with subprocess.Popen(
        line, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="backslashreplace", env=_environment()
    ) as process:
        try:
            if not _answers(process, place):
                raise IoError(f"nbdkit does not serve: {_reason(process)}")
            yield process
        finally:
            process.terminate()
            process.wait()
            if place.path:
                Path(place.path).unlink(missing_ok=True)
            if process.returncode < 0 and crashed is not None:
                crashed()


def _check_free(place: Place) -> None:
    """Raise ``IoError`` if somebody serves there already: his greeting would be taken for nbdkit's."""
    if place.path and os.path.lexists(place.path):
        raise IoError(f"{place.path} is there already: remove it, or serve at another path")
    if not place.path and _is_served(place):
        raise IoError(f"somebody serves at {place.host}:{place.port} already: take another port")


def _is_served(place: Place) -> bool:
    try:
        place.connect().close()
    except OSError:
        return False
    return True


def _answers(process: subprocess.Popen[str], place: Place) -> bool:
    """Wait until it greets a client: the machine is open then. False: it ended."""
    while process.poll() is None:
        with suppress(OSError), place.connect() as connection:
            connection.settimeout(_SOON)
            greeting = b""
            while process.poll() is None and len(greeting) < len(_GREETING) + 2:
                with suppress(TimeoutError):
                    part = connection.recv(64)
                    greeting += part
                    if not part:
                        break
            if greeting.startswith(_GREETING):
                connection.sendall(_FAREWELL)
                return True
        time.sleep(_SOON)
    return False


def _reason(process: subprocess.Popen[str]) -> str:
    """Why it ended: what it says is an error, in one line."""
    assert process.stderr is not None
    lines = [told(line) for line in process.stderr]
    return "; ".join(line for line in lines if line) or f"it ended with code {process.wait()}"


def told(line: str) -> str:
    """A line of nbdkit's without what it calls itself and its plugin."""
    text = line.strip()
    head, mark, tail = text.partition("error: ")
    return tail if mark and head.startswith("nbdkit") else text


def relay(process: subprocess.Popen[str], say: Callable[[str], None]) -> int:
    """Hand on each line that it complains with until it ends; returns its exit code."""
    assert process.stderr is not None
    for line in process.stderr:
        say(told(line))
    return process.wait()


def run_beside(command_line: str, place: Place, process: subprocess.Popen[str], say: Callable[[str], None]) -> int:
    """Run a command of the shell, which has the URI in ``$uri``, and :func:`relay` meanwhile.

    Returns what it ends with, as a shell tells it.
    """
    threading.Thread(target=relay, args=(process, say), daemon=True).start()
    with subprocess.Popen(["/bin/sh", "-c", command_line], env={**os.environ, "uri": place.uri}) as shell:
        try:
            code = shell.wait()
        except BaseException:
            shell.terminate()
            raise
    return code if code >= 0 else 128 - code
