# SPDX-License-Identifier: Apache-2.0
"""What may come of anything wrong that is handed to the library: it works, or it is told; it is never a defect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from libmicrovmi_py.errors import MicrovmiError

INTERNAL = MicrovmiError.code


def told(what: object, action: Callable[[], Any]) -> Any:
    """What ``action`` returns, or the error that it raised; anything but an error with a text of its own fails."""
    try:
        return action()
    except MicrovmiError as err:
        if err.code == INTERNAL or not str(err).replace("\n", "").isprintable():
            raise AssertionError(f"{what!r:.2000} ends in {err!r}") from err
        return err
    except Exception as err:
        raise AssertionError(f"{what!r:.2000} ends in {err!r}, which is no error of ours") from err


class Caller:
    """Calls of the C library: ``codes`` counts the errors that were told."""

    def __init__(self, lib: Any) -> None:
        self._lib = lib
        self.codes: dict[int, int] = {}

    def __call__(self, what: object, name: str, *arguments: Any) -> Any:
        """The result of a call, which must not be a defect. ``what`` says what was handed in."""
        result = getattr(self._lib, name)(*arguments)
        code = self._lib.microvmi_last_error_code()
        self.codes[code] = self.codes.get(code, 0) + 1
        text = self._lib.microvmi_last_error().decode()
        assert code != INTERNAL, f"{what!r:.2000}: {name}: {text}"
        assert text.replace("\n", "").isprintable(), f"{what!r:.2000}: {name}: {text!r}"
        return result
