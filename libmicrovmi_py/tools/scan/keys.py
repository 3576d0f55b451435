# SPDX-License-Identifier: Apache-2.0
"""Keys for the workers of this host: whoever can talk to one has it run code, and every user of a host can connect."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from libmicrovmi_py.errors import DriverUnavailableError, escaped

_DAYS = "30"
_SECONDS = 30.0


@contextmanager
def keys(distributed: Any) -> Iterator[Any]:
    """Dask's settings for connections that only who has these keys can make; they are gone after the block.

    Raises ``DriverUnavailableError`` without the program openssl, which makes them.
    """
    program = shutil.which("openssl")
    if program is None:
        raise DriverUnavailableError("openssl is not installed: apt install openssl, or scan with --workers 1")
    with tempfile.TemporaryDirectory(prefix="microvmi-scan-") as folder:  # nobody else can enter it
        key, certificate = Path(folder) / "key", Path(folder) / "certificate"
        _make(program, key, certificate)
        files = {f"tls_{role}_key": str(key) for role in ("client", "scheduler", "worker")}
        files |= {f"tls_{role}_cert": str(certificate) for role in ("client", "scheduler", "worker")}
        yield distributed.Security(require_encryption=True, tls_ca_file=str(certificate), **files)


def _make(program: str, key: Path, certificate: Path) -> None:
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", _DAYS)
    command = [
        program,
        "req",
        "-x509",
        *kind,
        "-subj",
        "/CN=microvmi scan",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines()
        raise DriverUnavailableError(f"openssl makes no key: {escaped(reason[-1]) if reason else done.returncode}")
