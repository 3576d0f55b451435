# SPDX-License-Identifier: Apache-2.0
"""Makes wrong texts, answers and files out of right ones: the same ones for the same seed, whatever they are for."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

SEED = int(os.environ.get("MICROVMI_FUZZ_SEED", "8"))
"""Another one makes another run."""

SCALE = int(os.environ.get("MICROVMI_FUZZ", "1"))
"""How many times as many rounds as ``make test`` has."""

NUMBERS = (-1, 0, 1, 0xFFFF, 70_000, 1 << 31, (1 << 63) - 1, 1 << 63, 1 << 64, 10**40, 10**400)
TEXTS = (
    "",
    "0",
    "-1",
    "²",
    "٣",
    "1" * 40,
    "f" * 40,
    "0x" + "9" * 400,
    "\0",
    "\x1b[2J",
    "\n",
    "\u202e",
    "a" * 64 + ".b",
)
WORDS = (
    "ram",
    "rom",
    "@",
    ":",
    "/",
    "..",
    "%",
    "&",
    "=",
    "[",
    "]",
    "{",
    "}",
    '"',
    "\\",
    ",,",
    "\r\n",
    " KVM",
    " owner:{",
)


class Mutator(random.Random):
    """A source of chance with hands."""

    def __new__(cls, subject: str, number: int) -> Mutator:
        """Without arguments: before Python 3.11 that of ``Random`` takes one at the most."""
        return super().__new__(cls)

    def __init__(self, subject: str, number: int) -> None:
        super().__init__(f"{SEED} {subject} {number}")

    def value(self) -> Any:
        """Anything that JSON can say, and what stands in wrong places of it."""
        nested: Any = []
        for _ in range(self.choice((1, 20, 63))):
            nested = self.choice(([nested], {"id": nested}))
        plain: tuple[Any, ...] = (*NUMBERS, *TEXTS, None, True, False, 1.5, 1e308, float("nan"))
        kinds = (*plain, [], {}, [None], {"id": None}, nested)
        return self.choice((*kinds, "\ud800", "x" * 100_000))

    def text(self, text: str) -> str:
        """``text`` with one thing changed."""
        at, until = sorted(self.randrange(len(text) + 1) for _ in range(2))
        end = min(until, at + self.choice((1, 8, 200)))
        change: Callable[[], str] = self.choice(
            (
                lambda: text[:at] + self.choice(TEXTS) + text[at:],
                lambda: text[:at] + self.choice(TEXTS) + text[end:],
                lambda: text[:at] + self.choice(WORDS) + text[end:],
                lambda: text[:at] + text[end:],
                lambda: text[:at] + text[at:end] * self.choice((2, 50)) + text[end:],
                lambda: text[:at],
                lambda: text[:at] + chr(self.choice((0, 0x7F, 0xB2, 0x663, 0x202E, 0xDC80, 0x1F600))) + text[at + 1 :],
                lambda: "".join(self.choice("0123456789abcdef") if c.isdigit() else c for c in text),
            )
        )
        return change()

    def data(self, data: bytes) -> bytes:
        """``data`` with one thing changed."""
        at = self.randrange(len(data) + 1)
        end = min(len(data), at + self.choice((1, 2, 4, 8, 64)))
        change: Callable[[], bytes] = self.choice(
            (
                lambda: data[:at] + self.randbytes(end - at) + data[end:],
                lambda: data[:at] + self.choice((b"\0", b"\xff")) * (end - at) + data[end:],
                lambda: data[:at] + data[end:],
                lambda: data[:at] + self.randbytes(end - at) + data[at:],
                lambda: data[:at],
            )
        )
        return change()

    def answer(self, answer: Any) -> Any:
        """A JSON value with one thing changed, at any depth."""
        if self.random() < 0.25:
            return self.value()
        if isinstance(answer, str):
            return self.text(answer)
        if isinstance(answer, list) and answer:
            return self._list(answer)
        if isinstance(answer, dict) and answer:
            return self._record(answer)
        return self.value()

    def _list(self, answer: list[Any]) -> list[Any]:
        at = self.randrange(len(answer))
        if self.random() < 0.2:
            return answer * self.choice((0, 2, 70_000 // len(answer) + 1))
        return [*answer[:at], self.answer(answer[at]), *answer[at + 1 :]]

    def _record(self, answer: dict[str, Any]) -> dict[str, Any]:
        key = self.choice(sorted(answer))
        if self.random() < 0.2:
            return {name: item for name, item in answer.items() if name != key}
        return {**answer, key: self.answer(answer[key])}
