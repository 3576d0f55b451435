# SPDX-License-Identifier: Apache-2.0
"""The processes and threads of a guest."""

from __future__ import annotations

from collections.abc import Iterator

from libmicrovmi_py.declare import TYPE_CHECKING, dataclass, field
from libmicrovmi_py.errors import AccessError, InvalidArgumentError, IoError, NotMappedError, VmGoneError
from libmicrovmi_py.linux import maps, threads
from libmicrovmi_py.linux.btf import NoSuchTypeError
from libmicrovmi_py.linux.maps import Mapping
from libmicrovmi_py.linux.objects import ChangedError, Object, listed, read
from libmicrovmi_py.paging import Paging

if TYPE_CHECKING:
    from libmicrovmi_py.linux.kernel import Kernel
    from libmicrovmi_py.memory.virtual import AddressSpace

MOST_TASKS = 1 << 18
_TRIES = 20
"""How often a list of a machine that runs is read."""

LONGEST_COMMAND_LINE = 1 << 16
"""Bytes of a command line that are read."""

KERNEL_THREAD, WORKER = 0x200000, 0x20
"""PF_KTHREAD and PF_WQ_WORKER in a task's flags."""

_LETTERS = "RSDTtXZPI"
"""As ``ps`` has them, by the highest bit of the state."""

_REPORTED, _IDLE, _IDLE_REPORTED = 0x7F, 0x402, 0x80
_AS_UNINTERRUPTIBLE = 0x9000
"""Waiting for a lock of a realtime kernel, or frozen."""


@dataclass(slots=True, frozen=True)
class Task:
    """A process, or a thread of one, as it was when it was read; 0 in ``memory`` and ``pages`` where it has no memory.

    ``name`` is what the task calls itself, 15 bytes at the most. ``parent`` is the process that gets its end,
    ``state`` the letter that ``ps`` has for it, ``user`` the number of the user by whose rights it works.
    ``address`` is that of its ``task_struct``, ``memory`` that of its ``mm_struct``, ``pages`` that of its page tables.
    """

    kernel: Kernel = field(repr=False, compare=False)
    address: int
    pid: int
    tgid: int
    parent: int
    name: bytes
    state: str
    flags: int
    user: int
    memory: int
    pages: int

    @property
    def is_thread(self) -> bool:
        """Whether it is a thread beside the first of its process."""
        return self.pid != self.tgid

    @property
    def is_kernel_thread(self) -> bool:
        """Whether it is a part of the kernel."""
        return bool(self.flags & KERNEL_THREAD)

    def shown_name(self) -> bytes:
        """The name as the guest's ``ps`` shows it: a worker of the kernel's with what it works on."""
        try:
            if self.flags & WORKER and self.is_kernel_thread:
                return threads.worker_name(self.kernel, self.address, self.name)
            if self.is_kernel_thread:
                return threads.kernel_thread_name(self.kernel, self.address, self.name)
        except VmGoneError:
            raise
        except (AccessError, NoSuchTypeError):
            pass  # it ended meanwhile, or the kernel has it otherwise
        return self.name

    def command_line(self) -> list[bytes]:
        """The arguments it was started with, the program's name first, or what it shows instead of them.

        Empty for threads of the kernel, for what has ended, and if the pages are not in memory.
        """
        try:
            return self._command_line()
        except VmGoneError:
            raise
        except (AccessError, InvalidArgumentError):
            return []

    def _command_line(self) -> list[bytes]:
        if (space := self.space) is None:
            return []
        memory = read(self.kernel, "mm_struct", self.memory)
        start, end, last = (memory.number(name) for name in ("arg_start", "arg_end", "env_end"))
        content = _prefix(space, start, end - start)
        if content and not content.endswith(b"\0") and len(content) == end - start:
            content = _prefix(space, start, last - start).partition(b"\0")[0]
        return content.removesuffix(b"\0").split(b"\0") if content else []

    @property
    def space(self) -> AddressSpace | None:
        """Its virtual memory; ``None`` for what has none."""
        if not self.pages:
            return None
        tables, machine = self.kernel.space.tables, self.kernel.machine
        if tables.paging is not Paging.AARCH64:
            return machine.address_space(self.pages, paging=tables.paging)
        control = tables.control & ~(1 << 7)
        return machine.address_space(self.pages, paging=tables.paging, upper_base=tables.upper_base, control=control)

    def maps(self) -> Iterator[Mapping]:
        """What is mapped in its memory, ascending; nothing if it has none."""
        return maps.mappings(self.kernel, self.memory) if self.memory else iter(())


def _prefix(space: AddressSpace, start: int, size: int) -> bytes:
    """Up to ``size`` bytes, as many as are mapped and no more than a command line may have."""
    content = bytearray(min(max(size, 0), LONGEST_COMMAND_LINE))
    return bytes(memoryview(content)[: space.read_virtual_into(start, content)])


def tasks(kernel: Kernel, *, threads: bool = False) -> Iterator[Task]:
    """The processes of a guest in the order in which they were started; with ``threads`` each with its other threads.

    Raises ``NotSupportedError`` for a kernel without types, ``IoError`` if the list is damaged, or changes faster than
    it is read.
    """
    for left in reversed(range(_TRIES)):
        try:
            return iter(_read(kernel, threads))
        except (ChangedError, NotMappedError) as err:
            if not left:
                raise IoError(f"{err}; its like {_TRIES} times: read a snapshot, or the paused machine") from err
    raise AssertionError


def _read(kernel: Kernel, threads: bool) -> list[Task]:
    first = kernel.init_task
    head = first + kernel.known_types().struct("task_struct").offset("tasks")
    parents = {first: 0}
    found = []
    for item in listed(kernel, head, "task_struct", "tasks", MOST_TASKS):
        found.append(_task(kernel, item, parents))
        if threads:
            found += _threads(kernel, item, parents, MOST_TASKS - len(found))
    return found


def _threads(kernel: Kernel, leader: Object, parents: dict[int, int], most: int) -> list[Task]:
    """The threads of a process but its first."""
    head = leader.number("signal") + kernel.known_types().struct("signal_struct").offset("thread_head")
    items = listed(kernel, head, "task_struct", "thread_node", most)
    return [_task(kernel, item, parents) for item in items if item.address != leader.address]


def _task(kernel: Kernel, item: Object, parents: dict[int, int]) -> Task:
    """``parents``: process by the address of a task, as far as they were needed."""
    memory = item.number("mm")
    parents[item.address] = item.number("tgid")
    parent = item.number("real_parent")
    if parent not in parents:
        parents[parent] = read(kernel, "task_struct", parent).number("tgid")
    return Task(
        kernel=kernel,
        address=item.address,
        pid=item.number("pid"),
        tgid=item.number("tgid"),
        parent=parents[parent],
        name=item.text("comm"),
        state=_state(item),
        flags=item.number("flags") & 0xFFFFFFFF,
        user=read(kernel, "cred", item.number("cred")).number("euid.val"),
        memory=memory,
        pages=_pages(kernel, memory) if memory else 0,
    )


def _pages(kernel: Kernel, memory: int) -> int:
    """The physical address of a process's page tables; 0 if they are gone."""
    tables = kernel.pointer(memory + kernel.known_types().struct("mm_struct").offset("pgd"))
    return kernel.space.translate(tables).physical_address or 0


def _state(item: Object) -> str:
    """The letter of a state."""
    state = item.number("__state" if "__state" in item else "state")  # renamed in 5.14
    reported = (state | item.number("exit_state")) & _REPORTED
    if state & _IDLE == _IDLE:
        reported = _IDLE_REPORTED
    elif state & _AS_UNINTERRUPTIBLE:
        reported = 2
    return _LETTERS[reported.bit_length()]
