# SPDX-License-Identifier: Apache-2.0
"""The files of a machine: which there are, and what is in each.

Numbers of files tell what they are: the lowest bits a kind, the others a vCPU or a process.
"""

from __future__ import annotations

import enum
import functools
import json
import threading
from collections.abc import Iterator, Mapping

from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.export import Layout, elf, raw
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.tools.mount.files import LayoutFile, ProcessMemory, TextFile
from libmicrovmi_py.tools.mount.wire import ROOT

if TYPE_CHECKING:
    from libmicrovmi_py.linux.kernel import Kernel
    from libmicrovmi_py.tools.mount.processes import Processes
    from libmicrovmi_py.tools.mount.server import File

_BITS = 4


class Kind(enum.IntEnum):
    """What a number is of; the lowest bits."""

    ROOT = 1
    MEMORY = 2
    ELF = 3
    MAP = 4
    VCPUS = 5
    PROCESSES = 6
    VCPU = 7
    PROCESS = 8
    NAME = 9
    MAPS = 10
    PROCESS_MEMORY = 11


_TOP = {"memory": Kind.MEMORY, "memory.elf": Kind.ELF, "map.json": Kind.MAP, "vcpus": Kind.VCPUS}
_OF_PROCESS = {"name": Kind.NAME, "maps": Kind.MAPS, "memory": Kind.PROCESS_MEMORY}
_FOLDERS = {Kind.ROOT, Kind.VCPUS, Kind.PROCESSES, Kind.PROCESS}
assert Kind.ROOT == ROOT


class MachineTree:
    """What ``server.Tree`` is, of a machine. ``fixed``: nothing in it changes by itself, a snapshot or a dump.

    ``kernel`` is that of a guest whose processes are to be there, ``None`` without.
    """

    def __init__(self, machine: Microvmi, kernel: Kernel | None) -> None:
        self._machine, self._kernel = machine, kernel
        self.fixed = machine.driver.static or machine.driver.lasting
        self._processes = _processes(kernel, self.fixed) if kernel and kernel.types else None
        self._vcpus = machine.vcpu_count() if Ability.READ_REGISTERS in machine.abilities.can else 0
        self._making = threading.Lock()
        self._texts: dict[int, bytes] = {}
        self._elf = elf(machine, kernel)
        self._raw = raw(machine)

    @property
    def has_processes(self) -> bool:
        """Whether there is a folder of processes."""
        return self._processes is not None

    def child(self, folder: int, name: str) -> int:
        """As ``server.Tree`` has it."""
        kind, index = _taken_apart(folder)
        if kind is Kind.ROOT:
            return self._top()[name]
        if kind is Kind.VCPUS:
            return _number(Kind.VCPU, self._vcpu_of(name))
        if kind is Kind.PROCESSES and self._processes:
            return _number(Kind.PROCESS, self._processes.number_of(name))
        if kind is Kind.PROCESS:
            return _number(self._of_process(index)[name], index)
        raise KeyError(name)

    def names(self, folder: int) -> Iterator[tuple[int, str]]:
        """As ``server.Tree`` has it."""
        kind, index = _taken_apart(folder)
        if kind is Kind.ROOT:
            yield from ((number, name) for name, number in self._top().items())
        elif kind is Kind.VCPUS:
            yield from ((_number(Kind.VCPU, vcpu), f"{vcpu}.json") for vcpu in range(self._vcpus))
        elif kind is Kind.PROCESSES and self._processes:
            yield from ((_number(Kind.PROCESS, number), str(number)) for number in self._processes.numbers())
        elif kind is Kind.PROCESS:
            yield from ((_number(item, index), name) for name, item in self._of_process(index).items())

    def is_folder(self, node: int) -> bool:
        """As ``server.Tree`` has it."""
        return _taken_apart(node)[0] in _FOLDERS

    def size(self, node: int) -> int:
        """As ``server.Tree`` has it. Texts of a machine that runs are made when they are opened, and not for this; the
        memory of a process has no size, as that of /proc/PID/mem."""
        kind, _ = _taken_apart(node)
        if kind is Kind.MEMORY:
            return self._raw.size if self.fixed else self._machine.max_addr
        if kind is Kind.ELF:
            return self._elf.size
        return len(self._text(node)) if self.fixed and kind is not Kind.PROCESS_MEMORY else 0

    def open(self, node: int) -> File:
        """As ``server.Tree`` has it. Of a machine that runs the registers are those of this moment."""
        kind, index = _taken_apart(node)
        if kind in (Kind.MEMORY, Kind.ELF):
            return LayoutFile(self._layout(kind), self.fixed)
        if kind is Kind.PROCESS_MEMORY and self._processes:
            return ProcessMemory(self._processes.space(index))
        return TextFile(self._text(node), self.fixed)

    def _layout(self, kind: Kind) -> Layout:
        if not self.fixed:
            with self._making:
                if kind is Kind.MEMORY:
                    self._raw = raw(self._machine)
                else:
                    self._elf = elf(self._machine, self._kernel)
        return self._raw if kind is Kind.MEMORY else self._elf

    def _text(self, node: int) -> bytes:
        if not self.fixed:
            return self._made(node)
        with self._making:
            if node not in self._texts:
                self._texts[node] = self._made(node)
            return self._texts[node]

    def _made(self, node: int) -> bytes:
        kind, index = _taken_apart(node)
        if kind is Kind.MAP:
            return _json(_map(self._machine))
        if kind is Kind.VCPU:
            return _json(_registers(self._machine, index))
        if kind is Kind.NAME and self._processes:
            return self._processes.name(index)
        if kind is Kind.MAPS and self._processes:
            return self._processes.maps(index)
        raise KeyError(node)

    def _top(self) -> Mapping[str, int]:
        return {**_TOP, "processes": Kind.PROCESSES} if self._processes else _TOP

    def _of_process(self, number: int) -> Mapping[str, Kind]:
        if self._processes is None:
            raise KeyError(number)
        has = self._processes.has_memory(number)
        return {name: kind for name, kind in _OF_PROCESS.items() if has or kind is not Kind.PROCESS_MEMORY}

    def _vcpu_of(self, name: str) -> int:
        index = next((vcpu for vcpu in range(self._vcpus) if name == f"{vcpu}.json"), None)
        if index is None:
            raise KeyError(name)
        return index


def _processes(kernel: Kernel, fixed: bool) -> Processes:
    from libmicrovmi_py.linux.tasks import tasks  # of whom has no Linux guest, nobody needs these
    from libmicrovmi_py.tools.mount.processes import Processes

    return Processes(functools.partial(tasks, kernel), fixed)


def _number(kind: Kind, index: int) -> int:
    return index << _BITS | kind


def _taken_apart(node: int) -> tuple[Kind, int]:
    try:
        return Kind(node & ((1 << _BITS) - 1)), node >> _BITS
    except ValueError:
        raise KeyError(node) from None


def _json(value: object) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"


def _map(machine: Microvmi) -> list[dict[str, object]]:
    return [
        {"start": f"{item.start:#x}", "end": f"{item.end:#x}", "size": item.size, "kind": item.kind.name.lower()}
        for item in machine.memory_map()
    ]


def _registers(machine: Microvmi, vcpu: int) -> dict[str, object]:
    """What is known of a vCPU, which may be nothing."""
    state = machine.read_states()[vcpu]
    values = {name: f"{value:#x}" for name, value in state.items()}
    found: dict[str, object] = {"vcpu": vcpu, "architecture": state.architecture.name.lower(), "registers": values}
    return {**found, "why_unknown": state.why_unknown} if state.why_unknown else found
