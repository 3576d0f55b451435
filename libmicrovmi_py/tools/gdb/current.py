# SPDX-License-Identifier: Apache-2.0
"""Which task of a Linux guest a vCPU is at, for lists of threads."""

from __future__ import annotations

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.errors import MicrovmiError, VmGoneError
from libmicrovmi_py.linux.objects import read
from libmicrovmi_py.model import U64_MAX

if TYPE_CHECKING:
    from libmicrovmi_py.linux.kernel import Kernel

_PLACES = ("current_task", "pcpu_hot", "__entry_task")
"""Variables of each CPU that are, or begin with, the address of its task: of x86 by version, and of AArch64."""


def task_of(kernel: Kernel, cpu: int) -> str:
    """The name and number of a CPU's task, safe for a terminal; "" if the kernel does not tell."""
    offsets = kernel.symbols.get("__per_cpu_offset")
    place = next((found for name in _PLACES if (found := kernel.symbols.get(name)) is not None), None)
    if offsets is None or place is None:
        return ""
    try:
        address = kernel.pointer(place + kernel.pointer(offsets + 8 * cpu) & U64_MAX)
        task = read(kernel, "task_struct", address)
        name = task.text("comm").decode("ascii", "replace")
        return f"{''.join(letter if letter.isprintable() else '?' for letter in name)} {task.number('pid')}"
    except VmGoneError:
        raise
    except (MicrovmiError, KeyError):
        return ""
