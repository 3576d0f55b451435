# SPDX-License-Identifier: Apache-2.0
"""Memory of a connector of a fake package memflow; see ``drivers/memflow_package``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from contract.target import Failing, Target

PACKAGES = Path(__file__).parents[2] / "drivers" / "memflow_package" / "packages"
SIZE = 0x40000


def stand(folder: Path) -> Iterator[Target]:
    """One range: the package does not tell what does not exist below the maximum address."""
    yield Target(_uri(size=SIZE), {0: _numbered(SIZE)}, writable=True)


def failing(folder: Path) -> Iterator[Failing]:
    """The connector fails; a read of several frames is one call, of which nothing is known then."""
    unreadable, unwritable = 0x18000, 0x30000
    uri = _uri(size=SIZE, unreadable=unreadable, unwritable=unwritable)
    yield Failing(uri, {0: _numbered(SIZE)}, unreadable, unwritable, exact=False)


def _uri(**arguments: int) -> str:
    items = quote(",".join(f"{key}={value:#x}" for key, value in arguments.items()))
    found = f"package={PACKAGES}&plugins={PACKAGES}"
    return f"vmi://memflow/?memflow_connector_name=fake&memflow_connector_args={items}&{found}"


def _numbered(size: int) -> bytes:
    return b"".join(address.to_bytes(8, "little") for address in range(0, size, 8))
