# SPDX-License-Identifier: Apache-2.0
"""Logging to standard error for ``microvmi_envlogger_init()``: RUST_LOG's filter, env_logger's line format."""

from __future__ import annotations

import contextlib
import logging
import os
import time

from libmicrovmi_py.errors import escaped

ROOT = "libmicrovmi_py"
TRACE = 5
LEVELS = {
    "off": logging.CRITICAL + 1,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": TRACE,
}
_NAMES = {level: name.upper() for name, level in LEVELS.items()} | {logging.CRITICAL: "ERROR"}


class _StandardError(logging.Handler):
    """Writes to descriptor 2, which the host may have closed: then the line is lost."""

    def emit(self, record: logging.LogRecord) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        level = _NAMES.get(record.levelno, record.levelname)
        line = f"[{stamp} {level:<5} {_target(record.name)}] {escaped(record.getMessage())}\n"
        if record.exc_info:
            lines = logging.Formatter().formatException(record.exc_info).splitlines()
            line += "".join(f"    {escaped(item)}\n" for item in lines)
        with contextlib.suppress(OSError):
            os.write(2, line.encode("utf-8", "backslashreplace"))


def _target(name: str) -> str:
    return name.replace(ROOT, "microvmi", 1).replace(".", "::")


def configure(text: str) -> None:
    """Log what the filter ``text`` lets through: ``LEVEL``, ``TARGET`` or ``TARGET=LEVEL``, separated by commas.

    A target is ``microvmi`` or ``microvmi::some::module``; the most specific one decides. Words that are neither
    are passed over, as env_logger does. Configuring again replaces the filter.
    """
    logging.addLevelName(TRACE, "TRACE")
    root = logging.getLogger(ROOT)
    for name in [name for name in logging.root.manager.loggerDict if name.startswith(ROOT)]:
        logging.getLogger(name).setLevel(logging.NOTSET)
    root.setLevel(LEVELS["off"])
    for item in text.split(","):
        target, level = _parse(item.strip())
        if target is not None:
            logging.getLogger(target).setLevel(level)
    if not any(isinstance(handler, _StandardError) for handler in root.handlers):
        root.addHandler(_StandardError())
    root.propagate = False


def _parse(item: str) -> tuple[str | None, int]:
    target, separator, level = item.partition("=")
    if not separator and target.lower() in LEVELS:
        return ROOT, LEVELS[target.lower()]
    name = target.replace("::", ".")
    if name == "microvmi" or name.startswith("microvmi."):
        name = ROOT + name[len("microvmi") :]
    if name != ROOT and not name.startswith(ROOT + "."):
        return None, 0
    return name, LEVELS.get(level.lower(), TRACE) if separator else TRACE
