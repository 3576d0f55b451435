# SPDX-License-Identifier: Apache-2.0
"""Names of the kernel's own threads, as a guest's ``ps`` shows them: longer than those of the tasks."""

from __future__ import annotations

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.linux.objects import read

if TYPE_CHECKING:
    from libmicrovmi_py.linux.kernel import Kernel
    from libmicrovmi_py.linux.objects import Object

_LONGEST = 63


def kernel_thread_name(kernel: Kernel, task: int, name: bytes) -> bytes:
    """The whole name of a thread of the kernel, if it is longer than a task's can be.

    Raises ``NotMappedError``, and ``NoSuchTypeError`` for a kernel that keeps no such names, as those before 5.17.
    """
    address = _thread(kernel, task).number("full_name")
    return kernel.text(address, _LONGEST) if address else name


def worker_name(kernel: Kernel, task: int, name: bytes) -> bytes:
    """The name of a worker with that of the queue that it works for, or worked for last."""
    worker = read(kernel, "worker", _thread(kernel, task).number("data"))
    if "rescue_wq" in worker and name.startswith(b"kworker/R-") and (queue := worker.number("rescue_wq")):
        name = b"kworker/R-" + read(kernel, "workqueue_struct", queue).text("name")
    work = worker.text("desc")
    if not work or not worker.number("pool"):
        return name[:_LONGEST]
    return (name + (b"+" if worker.number("current_work") else b"-") + work)[:_LONGEST]


def _thread(kernel: Kernel, task: int) -> Object:
    """What the kernel keeps of a thread of its own; until 5.17 in a member that other tasks have for something else."""
    structure = kernel.known_types().struct("task_struct")
    member = "worker_private" if "worker_private" in structure else "set_child_tid"
    return read(kernel, "kthread", kernel.pointer(task + structure.offset(member)))
