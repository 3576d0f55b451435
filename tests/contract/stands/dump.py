# SPDX-License-Identifier: Apache-2.0
"""Memory images that the test writes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from contract.target import Target


def stand(folder: Path) -> Iterator[Target]:
    """A raw image whose end is within a frame."""
    content, path = random.Random(1).randbytes(70 * 4096 + 100), folder / "image.raw"
    path.write_bytes(content)
    yield Target(str(path), {0: content}, writable=False)
