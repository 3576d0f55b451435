# SPDX-License-Identifier: Apache-2.0
"""What a Linux guest calls addresses and address spaces; of other guests nothing is known."""

from __future__ import annotations

import time

from libmicrovmi_py.command import kit
from libmicrovmi_py.declare import TYPE_CHECKING, NamedTuple
from libmicrovmi_py.errors import MicrovmiError, VmGoneError
from libmicrovmi_py.machine.microvmi import Microvmi

if TYPE_CHECKING:
    from libmicrovmi_py.linux.kernel import Kernel
    from libmicrovmi_py.linux.tasks import Task

_TABLES = 0x000F_FFFF_FFFF_F000
"""The bits of CR3 that are the address of page tables."""

_USERS = 0x1000
"""What is set in it while a program has tables of its own (KPTI)."""

_SHARE = 10
"""All processes are read again when so many times as long has passed as the last time took."""

_LARGEST_VARIABLE = 8


class Process(NamedTuple):
    """What an address space belongs to; ``name`` has bytes that are no text escaped."""

    pid: int
    name: str


class GuestNames:
    """The names of a guest; ``why_not`` is why there are none, in one line."""

    def __init__(self, kernel: Kernel | None, why_not: str = "") -> None:
        self._kernel = kernel
        self._why_not = why_not
        self._named: dict[int, str] = {}  # places as the user calls them
        self._owners: dict[int, Task] = {}
        self._next = 0.0

    @classmethod
    def of(cls, machine: Microvmi) -> GuestNames:
        """Those of a machine's guest; standard error says why there are none."""
        from libmicrovmi_py.linux.kernel import Kernel

        try:
            return cls(Kernel.find(machine))
        except VmGoneError:
            raise
        except MicrovmiError as err:
            kit.say(f"no names: {err}")
            return cls(None, str(err))

    # ----------------------------------------------------------------------------------------------------- addresses

    def addresses(self, word: str) -> list[int]:
        """What a word stands for: a number, or a symbol, all functions of that name. Raises :class:`kit.Failure`."""
        try:
            return [int(word, 0)]
        except ValueError:
            pass
        if self._kernel is None:
            raise kit.Failure(f"{word} is no address, and there are no symbols: {self._why_not}")
        if not (found := self._kernel.symbols.all(word)):
            raise kit.Failure(f"the guest's kernel has no symbol {word}")
        self._named.update(dict.fromkeys(found, word))
        return found

    def of_each_cpu(self, address: int, cpus: int) -> list[int]:
        """Where a variable is: in several places if each CPU has its own."""
        kernel = self._kernel
        if kernel is None:
            return [address]
        from libmicrovmi_py.linux.current import own_address

        start, end = kernel.symbols.get("__per_cpu_start"), kernel.symbols.get("__per_cpu_end")
        if start is None or end is None or not start <= address < end or "__per_cpu_offset" not in kernel.symbols:
            return [address]
        places = [own_address(kernel, address, cpu) for cpu in range(cpus)]
        self._named.update(dict.fromkeys(places, self._named.get(address, f"{address:#x}")))
        return places

    def size_at(self, address: int) -> int:
        """The bytes of a variable of which nobody says how large it is: as far as to the next one, 8 at the most."""
        following = (item for item, _, _ in self._kernel.symbols if item > address) if self._kernel else ()
        return min(_LARGEST_VARIABLE, min((item - address for item in following), default=_LARGEST_VARIABLE))

    def symbol(self, address: int) -> str | None:
        """What is there, as ``name+0x10``; ``None`` outside of the kernel, unless it was named."""
        if self._kernel is None or address in self._named:
            return self._named.get(address)
        try:
            name, offset = self._kernel.symbols.at(address)
        except KeyError:
            return None
        return f"{name}+{offset:#x}" if offset else name

    # ----------------------------------------------------------------------------------------------------- processes

    def owner(self, tables: int) -> Process | None:
        """The process whose page tables a value of CR3 means; ``None`` if it is not known."""
        kernel, base = self._kernel, tables & _TABLES
        if kernel is None:
            return None
        if base == kernel.space.tables.base & _TABLES:
            return Process(0, "kernel")
        task = self._known(base)
        if task is None and time.monotonic() >= self._next:
            self._read_all(kernel)
            task = self._known(base)
        return None if task is None else Process(task.pid, _text(task.name))

    def running(self, cpu: int) -> Process | None:
        """The task that a CPU is at; ``None`` if it is not known."""
        if self._kernel is None:
            return None
        from libmicrovmi_py.linux.current import current

        found = current(self._kernel, cpu)
        return None if found is None else Process(found.pid, _text(found.name))

    def _known(self, base: int) -> Task | None:
        """The task that has these tables, and has them still."""
        task = self._owners.get(base) or self._owners.get(base & ~_USERS)
        return task if task is not None and _is_as_it_was(task) else None

    def _read_all(self, kernel: Kernel) -> None:
        from libmicrovmi_py.linux.tasks import tasks

        start = time.monotonic()
        try:
            self._owners = {task.pages: task for task in tasks(kernel) if task.pages}
        except VmGoneError:
            raise
        except MicrovmiError:
            self._owners = {}
        end = time.monotonic()
        self._next = end + _SHARE * (end - start)


def _is_as_it_was(task: Task) -> bool:
    """Whether a task has the memory and the number that it had: an end, or a new program, takes both from it."""
    structure = task.kernel.known_types().struct("task_struct")
    try:
        memory = task.kernel.pointer(task.address + structure.offset("mm"))
        number = task.kernel.pointer(task.address + structure.offset("pid")) & 0xFFFFFFFF
    except VmGoneError:
        raise
    except MicrovmiError:
        return False
    return (memory, number) == (task.memory, task.pid)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
