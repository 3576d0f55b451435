# SPDX-License-Identifier: Apache-2.0
"""Memory images that the test writes: raw, one format whose memory is mapped, one whose pages are packed."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from contract.tables import laid
from contract.target import Failing, Target
from drivers.dump import builders

PAGE = 4096
SIZES = {0: 70, 0x100000: 130, 0x8000000: 3, 0x100000000: 20}
"""Start -> pages."""

NOTES = b"".join(builders.qemu_note(builders.values(vcpu)) for vcpu in range(2))


def stand(folder: Path) -> Iterator[Target]:
    """A raw image whose end is within a frame."""
    content, path = laid({0: random.Random(1).randbytes(70 * PAGE + 100)})[0], folder / "image.raw"
    path.write_bytes(content)
    yield Target(str(path), {0: content}, writable=False)


def stand_unmapped(folder: Path) -> Iterator[Target]:
    """A raw image that is read by system calls."""
    content, path = laid({0: random.Random(3).randbytes(70 * PAGE + 100)})[0], folder / "image.raw"
    path.write_bytes(content)
    yield Target(f"vmi://dump/?path={path}&mapped=no", {0: content}, writable=False)


def stand_elf(folder: Path) -> Iterator[Target]:
    """An ELF core without notes, and so without vCPUs."""
    yield _written(folder / "core", builders.elf)


def stand_aarch64(folder: Path) -> Iterator[Target]:
    """An ELF core of an AArch64 machine, with registers."""
    notes = b"".join(builders.prstatus_aarch64(vcpu, 0x3C5) for vcpu in range(2))
    yield _written(folder / "core", lambda memory: builders.elf(memory, notes, machine=183))


def stand_lime(folder: Path) -> Iterator[Target]:
    """A LiME image."""
    yield _written(folder / "image.lime", builders.lime)


def stand_kdump(folder: Path) -> Iterator[Target]:
    """Pages that are unpacked when they are read, and registers."""
    yield _written(folder / "vmcore", lambda memory: builders.kdump(memory, NOTES))


def failing(folder: Path) -> Iterator[Failing]:
    """A packed dump of which a page cannot be unpacked."""
    page, path = b"damaged!" * (PAGE // 8), folder / "damaged"
    pieces = {0x100000: random.Random(3).randbytes(30 * PAGE) + page + bytes(10 * PAGE)}

    def pack(content: bytes) -> bytes:
        return content[:99] if content == page else zlib.compress(content)

    path.write_bytes(builders.kdump(pieces, pack=pack))
    yield Failing(str(path), pieces, 0x100000 + 30 * PAGE)


def _written(path: Path, build: Callable[[builders.Memory], bytes]) -> Target:
    source = random.Random(2)
    pieces = {start: source.randbytes(count * PAGE // 2) + bytes(count * PAGE // 2) for start, count in SIZES.items()}
    pieces = laid(pieces)
    path.write_bytes(build(pieces))
    return Target(str(path), pieces, writable=False)
