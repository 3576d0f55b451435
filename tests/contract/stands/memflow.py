# SPDX-License-Identifier: Apache-2.0
"""Memory of a connector that is played by a stand-in for the memflow package; see ``drivers/memflow_package``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from contract.target import Target

PACKAGES = Path(__file__).parents[2] / "drivers" / "memflow_package" / "packages"
SIZE = 0x40000


def stand(folder: Path) -> Iterator[Target]:
    """One range: the package does not tell what does not exist below the maximum address."""
    content = b"".join(address.to_bytes(8, "little") for address in range(0, SIZE, 8))
    arguments = f"memflow_connector_name=played&memflow_connector_args=size={SIZE:#x}".replace("=0x", "%3D0x")
    yield Target(f"vmi://memflow/?{arguments}&package={PACKAGES}&plugins={PACKAGES}", {0: content}, writable=True)
