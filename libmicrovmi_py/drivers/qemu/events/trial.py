# SPDX-License-Identifier: Apache-2.0
"""The proof that whoever changes the address space stores into a variable soon after: a watchpoint then tells of it.

QEMU stops at a breakpoint much slower than at a watchpoint, as it throws its translations away. So while a breakpoint
tells of each change, every variable that may serve is watched as well. One serves that is written after each change,
before the vCPU's next; of those, the one that is written least often.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

_ENOUGH, _FEWEST, _MOST = 24, 8, 400
"""Changes after which a variable was written: those that are enough, and those that must do after a second. And those
that are looked at before all is given up: with other vCPUs about, some tell nothing."""

_SECONDS = 1.0


class _Variable:
    """What was seen of one."""

    def __init__(self) -> None:
        self.stops = 0
        self.followed = 0
        self.failed = False


class Trial:
    """That of one instruction which changes address spaces. Variables are offsets from a vCPU's base."""

    def __init__(self, site: int, offsets: Iterable[int]) -> None:
        self.site = site
        self._variables = {offset: _Variable() for offset in offsets}
        self._awaited: dict[int, set[int]] = {}  # by vCPU: what was not written since its last change
        self._disturbed: set[int] = set()  # vCPUs since whose last change another one stopped the machine
        self._changes = 0
        self._ends = time.monotonic() + _SECONDS

    @property
    def offsets(self) -> frozenset[int]:
        """What is to be watched."""
        return frozenset(offset for offset, seen in self._variables.items() if not seen.failed)

    def stopped(self, vcpu: int) -> None:
        """The machine stopped by a vCPU: QEMU tells of one, and forgets what others came to in the same moment."""
        self._disturbed |= {other for other in self._awaited if other != vcpu}

    def written(self, vcpu: int, offset: int) -> None:
        """A vCPU wrote its variable."""
        if (seen := self._variables.get(offset)) is not None:
            seen.stops += 1
            self._awaited.get(vcpu, set()).discard(offset)

    def changed(self, vcpu: int) -> None:
        """A vCPU changed its address space by the instruction."""
        self._changes += 1
        awaited = self._awaited.get(vcpu)
        if awaited is not None:
            self._judge(awaited, disturbed=vcpu in self._disturbed)
        self._awaited[vcpu] = set(self._variables)
        self._disturbed.discard(vcpu)

    def _judge(self, missing: set[int], *, disturbed: bool) -> None:
        for offset, seen in self._variables.items():
            if offset not in missing:
                seen.followed += 1
            elif not disturbed:
                seen.failed = True

    @property
    def over(self) -> bool:
        """Whether enough was seen."""
        best = max((seen.followed for seen in self._variables.values() if not seen.failed), default=_MOST)
        enough = _FEWEST if time.monotonic() > self._ends else _ENOUGH
        return best >= enough or self._changes >= _MOST

    def result(self, known: Iterable[int]) -> int | None:
        """The variable that serves, one of the ``known`` before others; ``None``: none does."""
        able = {
            offset: seen for offset, seen in self._variables.items() if not seen.failed and seen.followed >= _FEWEST
        }
        if not able:
            return None
        known = [offset for offset in known if offset in able]
        return min(known or able, key=lambda offset: able[offset].stops)
