# SPDX-License-Identifier: Apache-2.0
"""The QEMU machines that there are, with what can be told of each without opening it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from libmicrovmi_py.declare import Any, replace
from libmicrovmi_py.drivers.base import Driver, able_by_class
from libmicrovmi_py.drivers.control import Phase
from libmicrovmi_py.drivers.qemu import sizes, stops
from libmicrovmi_py.drivers.qemu.inquiry import Inquiry, ask_all
from libmicrovmi_py.drivers.qemu.machines import Qemu, find_both, nearest
from libmicrovmi_py.drivers.qemu.memory import HostMemory
from libmicrovmi_py.drivers.qemu.monitor import Monitor
from libmicrovmi_py.drivers.qemu.places import endpoints
from libmicrovmi_py.errors import (
    DriverUnavailableError,
    MicrovmiError,
    PermissionDeniedError,
    TimeoutExpiredError,
)
from libmicrovmi_py.listed import NOTHING, ListedMachine, MachineState, uri_of
from libmicrovmi_py.transport.fds import StandardStreamsHeld
from libmicrovmi_py.transport.processes import Process
from libmicrovmi_py.transport.shape import integer, record, records, text
from libmicrovmi_py.transport.unixsock import Endpoint

_MOST_MEMORY = 1 << 52
_MOST_VCPUS = 0xFFFF
_NOT_ASKED = "its monitor was not asked: those of other machines took all the time that there is"
_STATES = {Phase.RUNS: MachineState.RUNNING, Phase.STOPPED: MachineState.PAUSED, Phase.HALTED: MachineState.PAUSED}


def machines(kind: type[Driver]) -> Iterator[ListedMachine]:
    """Every QEMU on this machine, those included that were given another program's name and listen.

    All monitors that are free are asked at once. Of one that somebody holds nothing is wanted: what is told of that
    machine is what its command line says.
    """
    by_program, renamed = find_both()
    places = _uris(kind.name, by_program, renamed)
    told: list[ListedMachine | None] = []
    asked: dict[Inquiry, _Found] = {}
    for qemu in by_program + renamed:
        found = _Found(kind, qemu, places[qemu.process])
        if (inquiry := found.to_be_asked()) is not None:
            asked[inquiry] = found
        else:
            told.append(found.told())
    told += [asked[inquiry].told() for inquiry in ask_all(asked)]
    there = (machine for machine in told if machine is not None)
    return iter(sorted(there, key=lambda machine: machine.process_id))


def _uris(driver: str, *groups: Sequence[Qemu]) -> dict[Process, str]:
    """What opens each: its name, where that means this one and no other, else its process.

    A name is looked for in the first group, and only then in the next, there without one that may be a path, see
    ``discovery.py``; that of several machines is the nearest user's. One that looks like a UUID, or a process
    id, may be another's.
    """
    uris: dict[Process, str] = {}
    taken: set[str] = set()
    for group in groups:
        named: dict[str, list[Qemu]] = {}
        for qemu in group:
            named.setdefault(qemu.name, []).append(qemu)
        for name, same in named.items():
            findable = name and name not in taken and (group is groups[0] or "/" not in name)
            findable = findable and not name.isdigit() and not sizes.uuid_of(name)
            near = nearest(same) if findable else []
            for qemu in same:
                uris[qemu.process] = _uri(driver, qemu, by_name=near == [qemu])
        taken.update(named)
    return uris


def _uri(driver: str, qemu: Qemu, *, by_name: bool) -> str:
    process = qemu.process
    by_process = uri_of(driver, vm_name=str(process.pid), started=str(process.start_time))
    return (uri_of(driver, vm_name=qemu.name) if by_name else "") or by_process


class _Found:
    """A QEMU, and what is told of it."""

    def __init__(self, kind: type[Driver], qemu: Qemu, uri: str) -> None:
        self._qemu = qemu
        self._able = able_by_class(kind)
        self._nowhere = ""
        self._machine = ListedMachine(
            kind.name,
            kind.type,
            name=qemu.name,
            uri=uri,
            process_id=qemu.process.pid,
            user_id=(qemu.process.uids() or (None,))[-1],
            memory=sizes.memory_size(qemu.argv, qemu.files),
            vcpus=sizes.vcpu_count(qemu.argv, qemu.files),
            uuid=sizes.machine_uuid(qemu.argv),
        )

    @cached_property
    def inquiry(self) -> Inquiry | None:
        """What its monitors are asked, ``None`` without any. Raises ``DriverUnavailableError`` if none is in reach."""
        places = endpoints(self._qemu)
        return Inquiry(self._qemu, places) if places else None

    def to_be_asked(self) -> Inquiry | None:
        """Its inquiry, if a monitor may answer: not that of a QEMU without one, or whose process stands."""
        try:
            return self.inquiry if self._qemu.process.standing is False else None
        except DriverUnavailableError as err:
            self._nowhere = str(err)
            return None

    def told(self) -> ListedMachine | None:
        """The machine, with what its monitor has told; ``None`` for one that ended meanwhile."""
        try:
            machine = self._closed(self._nowhere) if self._nowhere else self._told(self.inquiry)
        except MicrovmiError as err:
            machine = self._closed(str(err))
        return machine if self._qemu.process.alive else None

    def _told(self, inquiry: Inquiry | None) -> ListedMachine:
        """By the steps of an opening. It connects to nobody: the words of the errors are wanted."""
        monitor = Monitor(self._qemu, inquiry.places if inquiry else (), 0)
        if inquiry is None and not monitor.is_carried():
            return self._lone()
        if inquiry is not None and "query-status" in inquiry.answers:
            return self._answered(inquiry.answers)
        if self._qemu.process.stopped:
            return self._closed(str(monitor.explained(TimeoutExpiredError("it is stopped"))))
        if inquiry is not None and not inquiry.errors:
            return replace(self._machine, abilities=self._able, reason=_NOT_ASKED)
        errors = inquiry.errors if inquiry else []
        if monitor.is_carried():
            return self._carried(monitor, errors)
        return self._closed(str(monitor.explained(monitor.nobody(errors))))

    def _carried(self, monitor: Monitor, errors: Sequence[tuple[Endpoint, MicrovmiError]]) -> ListedMachine:
        """A machine that is reached through libvirt, which is not asked: its domain would be tainted by a question."""
        with StandardStreamsHeld():
            from libmicrovmi_py.drivers.qemu import libvirt
        try:
            libvirt.listening(self._qemu.process)
        except DriverUnavailableError as err:
            return self._closed(str(monitor.explained(monitor.uncarried(errors, err))))
        return replace(self._machine, state=self._state(), reason=self._refused(), abilities=self._able)

    def _lone(self) -> ListedMachine:
        """A machine of which there is the memory. Raises as ``LoneQemu.of``: it is opened for a moment."""
        with StandardStreamsHeld():
            from libmicrovmi_py.drivers.qemu.alone import LoneQemu
        driver = LoneQemu.of(self._qemu, mapped=False)
        driver.close()
        return replace(self._machine, state=self._state(), reason=driver.remedy, abilities=driver.abilities)

    def _state(self) -> MachineState:
        """What the process alone tells."""
        return MachineState.OTHER if self._qemu.process.stopped else MachineState.UNKNOWN

    def _closed(self, reason: str) -> ListedMachine:
        """It cannot be opened at present."""
        return replace(self._machine, state=self._state(), reason=reason, abilities=NOTHING)

    def _answered(self, answers: dict[str, Any]) -> ListedMachine:
        """Raises ``VmGoneError`` for a machine that was migrated away, ``IoError`` for answers that make no sense."""
        word = text(record(answers["query-status"], "the status").get("status"), "the machine's state")
        run = stops.run_state(word)
        why = run.no_pause or run.no_resume
        sizes_told = record(answers.get("query-memory-size-summary", {}), "the memory's size")
        memory = sum(integer(size, "the memory's size", 0, _MOST_MEMORY) for size in sizes_told.values())
        vcpus = len(records(answers.get("query-cpus-fast", []), "the vCPUs")[:_MOST_VCPUS])
        uuid = record(answers.get("query-uuid", {}), "the UUID").get("UUID", "")
        return replace(
            self._machine,
            state=MachineState.OTHER if why else _STATES.get(run.phase, MachineState.OTHER),
            reason=why or self._refused(),
            abilities=self._able,
            memory=memory or self._machine.memory,
            vcpus=vcpus or self._machine.vcpus,
            uuid=sizes.uuid_of(text(uuid, "the UUID")) or self._machine.uuid,
        )

    def _refused(self) -> str:
        """Why its memory cannot be looked into, but for that in files which we may open; ``""`` if it can."""
        try:
            HostMemory(self._qemu.process).close()
        except PermissionDeniedError as err:
            return str(err)
        return ""
