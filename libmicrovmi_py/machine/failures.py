# SPDX-License-Identifier: Apache-2.0
"""Steps that are each done whatever becomes of the others; what failed is told at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from libmicrovmi_py.errors import VmGoneError, logger, told

_log = logger(__name__)


class Failures:
    """What failed of several steps. ``gone`` is whether one found that the machine ended, which is no failure."""

    def __init__(self) -> None:
        self.gone = False
        self._first: BaseException | None = None

    def __bool__(self) -> bool:
        return self.gone or self._first is not None

    @contextmanager
    def noted(self) -> Iterator[None]:
        """A step; nothing raised in it gets past it."""
        try:
            yield
        except VmGoneError:
            self.gone = True
        except BaseException as err:
            if self._first is None:
                self._first = err
            else:
                _log.error("not undone: %s", told(err))

    def tell(self) -> None:
        """Raise the first failure, if there was one."""
        if self._first is not None:
            raise self._first
