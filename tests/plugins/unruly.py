# SPDX-License-Identifier: Apache-2.0
"""A driver whose every call does what no driver should."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NoReturn

from libmicrovmi_py.drivers.base import Driver
from libmicrovmi_py.params import Parameters


def _exit() -> NoReturn:
    raise SystemExit(3)


def _interrupt() -> NoReturn:
    raise KeyboardInterrupt


def _recurse() -> Any:
    return _recurse()


def _divide() -> float:
    return 1 / 0


def _no_memory() -> NoReturn:
    raise MemoryError


class _NoText(Exception):
    def __str__(self) -> str:
        raise ValueError("this error has no text")


def _no_text() -> NoReturn:
    raise _NoText


def _surrogate() -> NoReturn:
    raise ValueError("half a character, \udc80, and a NUL, \0")


WAYS: dict[str, Callable[[], Any]] = {
    "exit": _exit,
    "interrupt": _interrupt,
    "recurse": _recurse,
    "divide": _divide,
    "memory": _no_memory,
    "no_text": _no_text,
    "surrogate": _surrogate,
    "text": lambda: "text where something else belongs",
    "negative": lambda: -1,
    "huge": lambda: 1 << 200,
}


class Unruly(Driver):
    """Misbehaves in the way ``how``; ``when=open`` already when it is opened."""

    name = "unruly"
    automatic = False
    parameters: ClassVar[dict[str, str]] = {"how": ", ".join(WAYS), "when": "open, or later"}

    def __init__(self, how: Callable[[], Any]) -> None:
        self._how = how

    @classmethod
    def open(cls, params: Parameters) -> Any:
        how = WAYS[params["how"]]
        return how() if params.get("when") == "open" else cls(how)

    @property
    def max_addr(self) -> int:
        return 1 << 20

    def read_frame(self, frame: int, offset: int, buffer: memoryview) -> Any:
        if self._how not in (WAYS["text"], WAYS["negative"], WAYS["huge"]):
            return self._how()
        raise ValueError("what this returns is not looked at")

    def write_frame(self, frame: int, offset: int, data: memoryview) -> Any:
        return self.read_frame(frame, offset, data)

    def memory_map(self) -> Any:
        return self._how()

    def vcpu_count(self) -> Any:
        return self._how()

    def read_states(self, vcpus: Sequence[int] | None) -> Any:
        return self._how()

    def close(self) -> Any:
        return self._how()


DRIVER = Unruly
