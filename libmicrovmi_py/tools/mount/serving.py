# SPDX-License-Identifier: Apache-2.0
"""The whole of it: mounted, served, unmounted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from libmicrovmi_py.tools.mount.mounting import mounted
from libmicrovmi_py.tools.mount.server import Server, Tree


@contextmanager
def served(tree: Tree, folder: str, *, program: str, name: str) -> Iterator[Server]:
    """A tree at a folder, until the end of the block, however that ends.

    ``program`` is the path of fusermount3, ``name`` what lists of mounts say. Raises ``IoError`` if it is not mounted.
    """
    with mounted(program, folder, name) as device:
        server = Server(device, tree)
        try:
            server.start()
            yield server
        finally:
            server.stop()
