# SPDX-License-Identifier: Apache-2.0
"""Which task of a Linux guest a CPU is at, and where its own variables are."""

from __future__ import annotations

from libmicrovmi_py.declare import TYPE_CHECKING, NamedTuple
from libmicrovmi_py.errors import MicrovmiError, VmGoneError
from libmicrovmi_py.linux.objects import read
from libmicrovmi_py.model import U64_MAX

if TYPE_CHECKING:
    from libmicrovmi_py.linux.kernel import Kernel

_PLACES = ("current_task", "pcpu_hot", "__entry_task")
"""Variables of each CPU that are, or begin with, the address of its task: of x86 by version, and of AArch64."""


class Current(NamedTuple):
    """A task by its number, and what it calls itself."""

    pid: int
    name: bytes


def own_address(kernel: Kernel, address: int, cpu: int) -> int:
    """Where a CPU has what the kernel's symbols have at ``address``, a variable of each CPU.

    Raises ``KeyError`` for a kernel of one CPU, ``NotMappedError``.
    """
    return address + kernel.pointer(kernel.symbols.address("__per_cpu_offset") + 8 * cpu) & U64_MAX


def current(kernel: Kernel, cpu: int) -> Current | None:
    """The task that a CPU is at; ``None`` if the kernel does not tell."""
    place = next((found for name in _PLACES if (found := kernel.symbols.get(name)) is not None), None)
    if place is None:
        return None
    try:
        task = read(kernel, "task_struct", kernel.pointer(own_address(kernel, place, cpu)))
        return Current(task.number("pid"), task.text("comm"))
    except VmGoneError:
        raise
    except (MicrovmiError, KeyError):
        return None
