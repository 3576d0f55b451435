# SPDX-License-Identifier: Apache-2.0
"""What others tell has the shape that is expected, or it is an ``IoError`` that says what came instead.

Whoever reads an answer of a monitor or of a library, or a text of a process, takes the parts that it needs through
these, so that nothing malformed gets further. Each raises ``IoError``; ``what`` names the value in its text.
"""

from __future__ import annotations

import reprlib

from libmicrovmi_py.declare import Any
from libmicrovmi_py.errors import IoError

_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = _SHOWN.maxlong = 60

_DIGITS = frozenset("0123456789")
_LONGEST_NUMBER = 20
"""Decimal digits of the largest number of 64 bits."""


def shown(value: object) -> str:
    """A value for an error's text, cut short without looking at all of it."""
    try:
        return _SHOWN.repr(value)
    except ValueError:  # an integer of thousands of digits
        return type(value).__name__


def integer(value: object, what: str, low: int, high: int) -> int:
    """A number from ``low`` to ``high``; a truth value is none."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise IoError(f"{what} is {shown(value)}, not a number from {low} to {high}")
    return value


def flag(value: object, what: str) -> bool:
    """A truth value."""
    if not isinstance(value, bool):
        raise IoError(f"{what} is {shown(value)}, neither true nor false")
    return value


def text(value: object, what: str) -> str:
    """A text."""
    if not isinstance(value, str):
        raise IoError(f"{what} is {shown(value)}, not a text")
    return value


def record(value: object, what: str) -> dict[str, Any]:
    """Names with values."""
    if not isinstance(value, dict):
        raise IoError(f"{what} is {shown(value)}, not an object")
    return value


def records(value: object, what: str) -> list[dict[str, Any]]:
    """A list of such."""
    if not isinstance(value, list):
        raise IoError(f"{what} is {shown(value)}, not a list")
    return [record(item, f"an item of {what}") for item in value]


def hexadecimal(digits: str, what: str, bits: int = 64) -> int:
    """Hexadecimal digits, which a pattern has found, of a number of so many bits."""
    value = int(digits, 16)
    if value >> bits:
        raise IoError(f"{what} has more than {bits} bits: {digits[:60]}")
    return value


def decimal(digits: str, high: int) -> int | None:
    """A text that is a number up to ``high`` in plain digits, ``None`` for every other text."""
    if not digits or len(digits) > _LONGEST_NUMBER or not _DIGITS.issuperset(digits):
        return None
    return value if (value := int(digits)) <= high else None
