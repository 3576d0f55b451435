# SPDX-License-Identifier: Apache-2.0
"""The guest's user space: an initramfs (a cpio archive in the "newc" format) of busybox and one init script."""

from __future__ import annotations

import stat
from pathlib import Path

READY = "microvmi-live: ready"
"""What the guest prints on its serial console when user space is up."""

BANNER = "microvmi-live: this line lies in the guest's memory {name}"
"""The pattern the guest fills 1 MiB of its memory with; ``name`` is that of the guest."""

PATTERN_SIZE = 1 << 20

INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /tmp
name=$(sed 's/.*live_name=//; s/ .*//' /proc/cmdline)
yes "{BANNER.format(name="$name")}" | head -c {PATTERN_SIZE} > /tmp/pattern
echo "{READY}" > /dev/ttyS0
counter=0
while true; do
    counter=$((counter + 1))
    echo $counter > /tmp/counter
    sleep 0.05
done
"""


def build(busybox: Path, target: Path) -> None:
    """Write the initramfs to ``target``."""
    entries = [_entry(name, stat.S_IFDIR | 0o755) for name in ("bin", "dev", "proc", "sys", "tmp")]
    entries.append(_entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)))
    entries.append(_entry("bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes()))
    entries.append(_entry("init", stat.S_IFREG | 0o755, INIT.encode()))
    entries.append(_entry("TRAILER!!!", 0))
    target.write_bytes(b"".join(entries))


def _entry(name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    """One member: magic, 13 numbers in hexadecimal, name, content; name and content end at multiples of 4."""
    path = name.encode() + b"\0"
    numbers = (0, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(path), 0)
    header = b"070701" + b"".join(b"%08x" % number for number in numbers)
    return _pad(header + path) + _pad(content)


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
