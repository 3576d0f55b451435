# SPDX-License-Identifier: Apache-2.0
"""What a machine of QEMU can be opened with."""

from __future__ import annotations

TIMEOUT = 10.0
"""Seconds."""

PARAMETERS = {
    "started": "clock ticks after boot at which the process began whose id vm_name is, as a list of machines tells",
    "qmp": "path or HOST:PORT of the QMP socket to use, instead of those on QEMU's command line",
    "monitor": "no: no monitor is used, memory alone, where its place is certain; yes if not given",
    "libvirt": "path of the socket of the libvirtd that holds the monitor, instead of where one listens usually",
    "mapped": "no: shared RAM is not mapped but read by system calls; yes if not given",
    "timeout": f"seconds that an operation on the monitor may take, {TIMEOUT:g} if not given",
    "watch": "on: the machine runs again if this process is killed while it keeps it paused; off if not given",
}
"""One line of help each."""
