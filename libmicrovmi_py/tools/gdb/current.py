# SPDX-License-Identifier: Apache-2.0
"""Which task of a Linux guest a vCPU is at, for lists of threads."""

from __future__ import annotations

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.linux.current import current

if TYPE_CHECKING:
    from libmicrovmi_py.linux.kernel import Kernel


def task_of(kernel: Kernel, cpu: int) -> str:
    """The name and number of a CPU's task, safe for a terminal; "" if the kernel does not tell."""
    task = current(kernel, cpu)
    if task is None:
        return ""
    name = task.name.decode("ascii", "replace")
    return f"{''.join(letter if letter.isprintable() else '?' for letter in name)} {task.pid}"
