# SPDX-License-Identifier: Apache-2.0
"""The machines whose QEMU connects to a socket for its introspector, by the command lines of the processes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence

from libmicrovmi_py.declare import replace
from libmicrovmi_py.drivers.base import Driver, able_by_class
from libmicrovmi_py.drivers.kvm import abi
from libmicrovmi_py.drivers.kvm.driver import OpenMachine
from libmicrovmi_py.drivers.kvm.listener import check_path
from libmicrovmi_py.errors import DriverUnavailableError, MicrovmiError
from libmicrovmi_py.listed import NOTHING, ListedMachine, MachineState, uri_of
from libmicrovmi_py.transport.foreign import load
from libmicrovmi_py.transport.options import options, values
from libmicrovmi_py.transport.processes import Process

_PROGRAMS = ("qemu", "kvm")


def machines(kind: type[Driver]) -> Iterator[ListedMachine]:
    """One for each QEMU that was started with introspection; none without libkvmi.

    No socket is made for it: a machine that connected would find nobody there a moment later.
    """
    try:
        load(abi.LIBRARIES, abi.DECLARATIONS)
    except DriverUnavailableError:
        return
    found = [(process, argv, path) for process, argv in _introspected() for path in _sockets(process, argv)]
    count = Counter(path for _, _, path in found)
    for process, argv, path in found:
        plain = ListedMachine(
            kind.name,
            kind.type,
            name=_name(argv),
            uri=uri_of(kind.name, kvm_unix_socket=path),
            process_id=process.pid,
            user_id=(process.uids() or (None,))[-1],
            state=MachineState.OTHER if process.stopped else MachineState.UNKNOWN,
        )
        reason = _reason(process, path, count[path])
        yield replace(plain, reason=reason, abilities=NOTHING if reason else able_by_class(OpenMachine))


def _introspected() -> Iterator[tuple[Process, list[str]]]:
    for process in Process.all(lambda name: any(word in name for word in _PROGRAMS)):
        argv = process.argv()
        if any(options(value, "kind").get("kind") == "introspection" for value in values(argv, "object")):
            yield process, argv


def _sockets(process: Process, argv: Sequence[str]) -> Iterator[str]:
    """The paths of the sockets that it connects to; it is the other end that has to make them."""
    devices = {item.get("id"): item for item in (options(value, "backend") for value in values(argv, "chardev"))}
    for value in values(argv, "object"):
        wanted = options(value, "kind")
        if wanted.get("kind") == "introspection" and (path := devices.get(wanted.get("chardev"), {}).get("path")):
            yield os.path.join(process.link("cwd") or "/", path)


def _name(argv: Sequence[str]) -> str:
    """The machine's name; the last that it was given counts."""
    return next((name for value in reversed([*values(argv, "name")]) if (name := options(value, "guest")["guest"])), "")


def _reason(process: Process, path: str, machines_there: int) -> str:
    """Why the machine cannot be opened at present; ``""`` if nothing is known to be in the way."""
    if process.stopped:
        return f"process {process.pid} is stopped by a signal or a debugger: let it go on (kill -CONT {process.pid})"
    if machines_there > 1:
        return f"{machines_there} machines connect to {path}: whichever is first would be opened"
    try:
        check_path(path)
    except MicrovmiError as err:
        return str(err)
    return ""
