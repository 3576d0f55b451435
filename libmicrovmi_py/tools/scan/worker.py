# SPDX-License-Identifier: Apache-2.0
"""What Dask's workers do beside running calls: leave machines as they were when they end."""

from __future__ import annotations

import signal
from typing import Any

from libmicrovmi_py.tools.scan import job
from libmicrovmi_py.tools.scan.cluster import library

WorkerPlugin: Any = getattr(library(), "WorkerPlugin", object)
"""Dask's class of plugins; without Dask nobody makes one."""


class Ending(WorkerPlugin):  # type: ignore[misc]  # Dask has no types where it is not installed
    """Of one scan: its machines are closed when the worker ends, or is told that the scan has."""

    def __init__(self, scan: str) -> None:
        self.name = f"microvmi-scan-{scan}"
        self._scan = scan

    def teardown(self, worker: object) -> None:
        """Dask calls it before it ends the worker, whose threads it does not wait for."""
        job.end(self._scan)


def dask_setup(worker: object) -> None:
    """Dask calls it in the main thread of a worker of this host, which the command started.

    Ctrl-C is for the command: it ends its workers in order.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
