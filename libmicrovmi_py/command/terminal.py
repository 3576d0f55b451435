# SPDX-License-Identifier: Apache-2.0
"""Standard output of code that is not ours, which prints what a guest says as it is."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from libmicrovmi_py.errors import harmless


class _Escaping(io.TextIOWrapper):
    """Lines and tabs are written; what else moves a cursor, or does more, is escaped."""

    def write(self, text: str) -> int:
        super().write(harmless(text, kept="\n\t"))
        return len(text)


@contextmanager
def harmless_output() -> Iterator[None]:
    """Have what is printed in the block escaped if it goes to a terminal; to a file or a pipe it goes as it is."""
    before = sys.stdout
    if not isinstance(before, io.TextIOWrapper) or not before.isatty():
        yield
        return
    before.flush()
    stream = _Escaping(before.buffer, before.encoding, before.errors, line_buffering=True)
    try:
        with redirect_stdout(stream):
            yield
    finally:
        stream.detach()  # which writes what is left, and leaves the terminal open
