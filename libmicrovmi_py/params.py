# SPDX-License-Identifier: Apache-2.0
"""What a machine is opened with: the text form ``vmi://DRIVER/?key=value&...`` and its parsed form."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping

from libmicrovmi_py.declare import TYPE_CHECKING, Any
from libmicrovmi_py.errors import InvalidArgumentError, is_control

SCHEME = "vmi"

FROZEN_KEYS = ("vm_name", "kvm_unix_socket", "memflow_connector_name", "memflow_connector_args")
"""Keys of upstream's ``vmi://`` handler and of ``DriverInitParamsFFI``; every driver may be handed them."""

COMMON_KEYS = {
    "cache": "bytes of pages to keep while the machine is paused, or never changes (default 16 MiB, 0: none)"
}
"""Keys that are not for the driver, with one line of help each."""

LONGEST = 4096
"""Characters that a value may have: Linux knows no longer path."""

REPEATED = "memflow_connector_args"
"""The key that a URI may have several times, an item each, as upstream's handler takes them."""

FILE_SCHEME = "file"

_SHOWN = 200
"""Characters of a wrong text that its error repeats."""


class Parameters(Mapping[str, str]):
    """Keys and values for a driver, with the driver's name where one was given.

    A value is text; ``memflow_connector_args`` joins its ``key=value`` items with commas. An empty value counts as
    not given. Names of machines and files go into error lines: control characters other than the tab, which a
    machine's name may have, and values of more than ``LONGEST`` characters, are an ``InvalidArgumentError``.
    """

    def __init__(
        self, values: Mapping[str, str | None] | None = None, driver: str | None = None, *, word: bool = False
    ) -> None:
        """``word`` is whether ``vm_name`` may be a file's name where no machine has it."""
        self.word = word
        self._values = {_line("a key", key): _line(key, value) for key, value in (values or {}).items() if value}
        self.driver = _line("the driver's name", driver.lower()) if driver else None

    def __getitem__(self, key: str) -> str:
        return self._values[key]

    if not TYPE_CHECKING:

        def get(self, key: str, default: object = None) -> object:
            """As that of any mapping, without an exception on the way for what was not given."""
            return self._values.get(key, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Parameters({self._values!r}, driver={self.driver!r})"

    @property
    def vm_name(self) -> str | None:
        """The machine's name as its hypervisor knows it, if given."""
        return self._values.get("vm_name")

    def as_file(self) -> Parameters:
        """The file that ``vm_name`` is where it is no machine's name: a memory image."""
        return Parameters({"path": self.vm_name}, driver="dump")

    def integer(self, key: str, default: int) -> int:
        """The value of ``key`` as an integer (decimal, or 0x hexadecimal), ``default`` if it is not given."""
        text = self._values.get(key)
        if text is None:
            return default
        try:
            return int(text, 0)
        except ValueError:
            raise InvalidArgumentError(f"{key}={text}: not an integer") from None

    def yes(self, key: str, default: bool) -> bool:
        """The value of ``key``, which is yes or no (or on or off), ``default`` if it is not given."""
        text = self._values.get(key, "yes" if default else "no")
        if text not in ("yes", "no", "on", "off"):
            raise InvalidArgumentError(f"{key}={_short(text)}: yes or no")
        return text in ("yes", "on")

    def on(self, key: str) -> bool:
        """Whether the value of ``key``, which is on or off, is on; off if it is not given."""
        text = self._values.get(key, "off")
        if text not in ("on", "off"):
            raise InvalidArgumentError(f"{key}={_short(text)}: on or off")
        return text == "on"

    def seconds(self, key: str, default: float) -> float:
        """The value of ``key`` as a time limit in seconds, more than 0, ``default`` if it is not given."""
        text = self._values.get(key)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            raise InvalidArgumentError(f"{key}={text}: not a number of seconds above 0")
        return value

    @classmethod
    def from_uri(cls, text: str) -> Parameters:
        """Parse ``vmi://DRIVER/?key=value&...``, ``file:///PATH``, a path to a memory image (with a slash), or a word.

        The first may have the machine's name as its path (``vmi:///NAME``). A word is a machine's name and, where no
        machine has that name, a file's (``word``).

        Raises ``InvalidArgumentError`` for another scheme, a name with a slash, a key without a value or twice.
        """
        if not text:
            raise InvalidArgumentError("empty URI: write vmi://DRIVER/?key=value, a path to a memory image, or a name")
        if "://" not in text:
            params = cls({"vm_name": text}, word=True)
            return params.as_file() if "/" in text else params
        return cls._from_whole_uri(text)

    @classmethod
    def _from_whole_uri(cls, text: str) -> Parameters:
        parse_qsl, unquote, urlsplit = _parsers()
        shown = _short(text)
        if not text.isprintable() and any(map(is_control, text)):
            raise InvalidArgumentError(f"{shown!r} has control characters")
        try:
            parts = urlsplit(text)
            pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query), errors="strict")
            path = unquote(parts.path, errors="strict")
        except ValueError as err:
            raise InvalidArgumentError(f"{shown}: {_short(str(err))}; write vmi://DRIVER/?key=value&...") from err
        if parts.scheme == FILE_SCHEME:
            return cls._from_file_uri(shown, parts.netloc, path, "?" in text or "#" in text)
        name = path.removeprefix("/")
        if parts.scheme != SCHEME or "/" in name or parts.fragment:
            raise InvalidArgumentError(f"{shown}: not of the form vmi://DRIVER/?key=value&...")
        named = [("vm_name", name)] if name else []
        return cls(_joined(shown, named + pairs), driver=parts.netloc)

    @classmethod
    def _from_file_uri(cls, shown: str, host: str, path: str, more: bool) -> Parameters:
        """The memory image that a ``file://`` URI names; ``more``: something stands behind its path."""
        if host not in ("", "localhost") or not path.startswith("/") or more:
            raise InvalidArgumentError(
                f"{shown}: not of the form file:///PATH of this host, where ? is %3F and # is %23"
            )
        return cls({"path": path}, driver="dump")


@functools.cache
def _parsers() -> tuple[Any, Any, Any]:
    from urllib.parse import parse_qsl, unquote, urlsplit  # not needed for a file or a name, and large

    return parse_qsl, unquote, urlsplit


def _joined(shown: str, pairs: list[tuple[str, str]]) -> dict[str, str]:
    """The pairs as they are, but for items of the key that may be repeated, which become one value."""
    items = [value for key, value in pairs if key == REPEATED]
    once = [(key, value) for key, value in pairs if key != REPEATED]
    values = dict(once)
    if len(values) != len(once):
        raise InvalidArgumentError(f"{shown}: a key is given twice")
    return {**values, REPEATED: ",".join(filter(None, items))} if items else values


def _line(name: str, value: str) -> str:
    """``value``, if it can be told in a line."""
    if not isinstance(value, str):
        raise InvalidArgumentError(f"{name} is not a text but {type(value).__name__}")
    if len(value) > LONGEST:
        raise InvalidArgumentError(f"{name} is {len(value)} characters long: {LONGEST} are the most")
    if not value.isprintable() and any(map(is_control, value.replace("\t", ""))):
        raise InvalidArgumentError(f"{name} has control characters: {_short(value)!r}")
    try:
        if not value.isascii():
            os.fsencode(value)
    except UnicodeError:
        raise InvalidArgumentError(f"{name} is not a printable path or name: {_short(value)!r}") from None
    return value


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
