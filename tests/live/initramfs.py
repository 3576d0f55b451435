# SPDX-License-Identifier: Apache-2.0
"""The guest's user space: an initramfs of busybox and one init script."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .cpio import Archive

READY = "microvmi-live: ready"
"""What the guest prints on its serial console when user space is up."""

KERNEL = "Linux version "
"""What the line about the kernel begins with, which the guest prints before."""

BANNER = "microvmi-live: this line lies in the guest's memory {name}"
"""The pattern the guest fills 1 MiB of its memory with; ``name`` is that of the guest."""

PATTERN_SIZE = 1 << 20

SETUP = "/setup"
"""A script that is run before that, if there is one."""

INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /tmp
name=$(sed 's/.*live_name=//; s/ .*//' /proc/cmdline)
yes "{BANNER.format(name="$name")}" | head -c {PATTERN_SIZE} > /tmp/pattern
cat /proc/version > /dev/console
[ ! -e {SETUP} ] || . {SETUP}
echo "{READY}" > /dev/console
counter=0
while true; do
    counter=$((counter + 1))
    echo $counter > /tmp/counter
    sleep 0.05
done
"""


def build(busybox: Path, target: Path, files: Mapping[str, bytes] | None = None) -> None:
    """Write the initramfs to ``target``; ``files`` are more files, by their paths."""
    archive = Archive()
    for name in ("/bin", "/dev", "/proc", "/sys", "/tmp"):
        archive.directory(name)
    archive.device("/dev/console", 5, 1)
    archive.file("/bin/busybox", busybox.read_bytes(), program=True)
    archive.file("/init", INIT.encode(), program=True)
    for path, content in (files or {}).items():
        archive.file(path, content)
    target.write_bytes(archive.to_bytes())
