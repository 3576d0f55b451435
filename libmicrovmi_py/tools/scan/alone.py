# SPDX-License-Identifier: Apache-2.0
"""One worker that is this process: what there is without Dask distributed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping

from libmicrovmi_py.errors import escaped
from libmicrovmi_py.tools.scan.calls import Failed

NAME = "this process"


class _Call:
    """A function that is run when its outcome is asked for."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    def outcome(self) -> object:
        try:
            return self._function()
        except Exception as err:
            return Failed(escaped(f"{type(err).__name__}: {err}"))

    def cancel(self) -> None:
        """Nothing: it has not begun."""


class Alone:
    """The engine."""

    def __init__(self) -> None:
        self._waiting: deque[_Call] = deque()

    def workers(self) -> Mapping[str, int]:
        return {NAME: 1}

    def call(self, worker: str, function: Callable[..., object], *given: object) -> _Call:
        call = _Call(lambda: function(*given))
        self._waiting.append(call)
        return call

    def done(self, seconds: float) -> Iterator[_Call]:
        while self._waiting:
            yield self._waiting.popleft()
